//! A *fault* is why a request is not answered with what it asks for (OCI distribution-spec, "Error Codes").
//!
//! Invariant: what a client is told is for people: what was asked, why it is not there, and what is there instead.

use hyper::StatusCode;

/// The kinds of faults. The first ones are the specification's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    Unauthorized,
    Unsupported,
    /// The client calls the registry by a name that is not its.
    Misdirected,
    /// The client takes none of the types that a manifest is to be had in.
    NotAcceptable,
    /// An image was not built. It is the client's kind of fault, not the server's: clients try the other kind again by
    /// themselves, and show nothing of what is said about it.
    BuildFailed,
    /// A number of entries that is none.
    PaginationNumberInvalid,
    /// No part of a blob is where a range says.
    RangeInvalid,
    /// Nothing of a registry is there.
    NotFound,
    /// What was built cannot be read.
    Unreadable,
}

impl Code {
    /// How it is written, and its status.
    fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", StatusCode::NOT_FOUND),
            Self::DigestInvalid => ("DIGEST_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", StatusCode::NOT_FOUND),
            Self::NameInvalid => ("NAME_INVALID", StatusCode::BAD_REQUEST),
            Self::NameUnknown => ("NAME_UNKNOWN", StatusCode::NOT_FOUND),
            Self::Unauthorized => ("UNAUTHORIZED", StatusCode::UNAUTHORIZED),
            Self::Unsupported => ("UNSUPPORTED", StatusCode::METHOD_NOT_ALLOWED),
            Self::Misdirected => ("DENIED", StatusCode::MISDIRECTED_REQUEST),
            Self::NotAcceptable => ("MANIFEST_UNKNOWN", StatusCode::NOT_ACCEPTABLE),
            Self::BuildFailed => ("BUILD_FAILED", StatusCode::UNPROCESSABLE_ENTITY),
            Self::PaginationNumberInvalid => ("PAGINATION_NUMBER_INVALID", StatusCode::BAD_REQUEST),
            Self::RangeInvalid => ("RANGE_INVALID", StatusCode::RANGE_NOT_SATISFIABLE),
            Self::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND),
            Self::Unreadable => ("UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// How it is written.
    pub(super) fn text(self) -> &'static str {
        self.parts().0
    }

    /// The status of an answer.
    pub(super) fn status(self) -> StatusCode {
        self.parts().1
    }
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub code: Code,
    /// For people; may have several lines.
    pub message: String,
}

impl Fault {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
