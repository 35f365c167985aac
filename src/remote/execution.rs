//! An *execution*: an action handed to a builder, watched until it ends, taken up again where the connection was lost.
//!
//! Invariant: an operation that is not over when it is left is cancelled at the builder; what runs there writes to the log
//! as it comes where the builder streams it, and at the end otherwise, and never twice.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream::ReadRequest;
use bazel_remote_apis::google::longrunning as operations;
use bazel_remote_apis::google::protobuf::Any;
use bazel_remote_apis::google::rpc;
use prost::Message;
use tokio::sync::Semaphore;
use tonic::{Code, Status};

use super::blob::Blob;
use super::error::RemoteError;
use super::line::{Line, MESSAGE_MAX, Running, Tries, is_cancelled};
use super::transfer::streams;

/// How soon a cancellation is seen.
const GLANCE: Duration = Duration::from_millis(100);

/// How long the builder may take to hear of a cancellation.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// How long a log may lag behind the end of what writes it.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// Pieces of a log that wait to be read.
const PIECES_WAITING: usize = 8;

/// What is done, for messages.
const WHAT: &str = "running a step";

/// How an action ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It ran to its end, well or not.
    Result(Box<api::ActionResult>),
    /// It took too long.
    TimedOut,
    /// The storage lacks something that was there: to be sent again.
    Missing,
}

/// What is told of an execution while it is under way.
enum News {
    /// From a stream of this number.
    Operation(u32, Box<operations::Operation>),
    /// That stream is over.
    Over(u32, Option<Status>),
    Log(Vec<u8>),
    LogOver,
}

/// What the user sees of an execution.
pub(super) struct Watcher<'a> {
    /// Takes what it writes.
    pub output: &'a mut dyn FnMut(&[u8]),
    /// Whether any of that came as a stream.
    pub has_streamed: bool,
}

/// An action at a builder.
pub(super) struct Execution<'a> {
    line: &'a Line,
    action: Blob,
    skip_cache: bool,
    /// Its operation's name, once there is one.
    name: Option<String>,
    is_over: bool,
    /// How many streams were opened.
    streams: u32,
    sender: Sender<News>,
    news: Receiver<News>,
    log: Option<Running>,
    log_is_over: bool,
    room: Arc<Semaphore>,
}

impl<'a> Execution<'a> {
    /// Runs an action whose inputs are there, to its end.
    pub(super) fn run(
        line: &'a Line,
        action: Blob,
        skip_cache: bool,
        watcher: &mut Watcher<'_>,
    ) -> Result<Ended, RemoteError> {
        let (sender, news) = channel();
        let mut execution = Execution {
            line,
            action,
            skip_cache,
            name: None,
            is_over: false,
            streams: 0,
            sender,
            news,
            log: None,
            log_is_over: true,
            room: Arc::new(Semaphore::new(PIECES_WAITING)),
        };
        let mut tries = Tries::default();
        loop {
            let _stream = execution.open();
            match execution.watch(watcher, &mut tries)? {
                Ok(response) => match execution.judge(response)? {
                    Ok(ended) => {
                        execution.drain(watcher);
                        return Ok(ended);
                    }
                    // Who ran it is gone, or has too much to do.
                    Err(status) => {
                        execution.name = None;
                        tries.again(line, WHAT, &status)?;
                    }
                },
                Err(status) => {
                    if matches!(status.code(), Code::NotFound) && execution.name.is_some() {
                        // The builder has forgotten it, as one does that was started anew.
                        execution.name = None;
                        tries.again(line, WHAT, &Status::unavailable(status.message()))?;
                    } else if is_missing(&details(&status)) && status.code() == Code::FailedPrecondition {
                        return Ok(Ended::Missing);
                    } else {
                        tries.again(line, WHAT, &status)?;
                    }
                }
            }
        }
    }

    /// Asks for the stream of the operation: a new one, or that which is under way.
    fn open(&mut self) -> Running {
        self.streams += 1;
        let number = self.streams;
        let client = api::execution_client::ExecutionClient::new(self.line.execution_channel());
        let mut client = client.max_decoding_message_size(MESSAGE_MAX);
        let sender = self.sender.clone();
        let waited = self
            .name
            .clone()
            .map(|name| self.line.request(api::WaitExecutionRequest { name }));
        let executed = self.line.request(api::ExecuteRequest {
            instance_name: self.line.instance.clone(),
            skip_cache_lookup: self.skip_cache,
            action_digest: Some(self.action.to_api()),
            digest_function: api::digest_function::Value::Sha256.into(),
            ..api::ExecuteRequest::default()
        });
        self.line.run(async move {
            let opened = match waited {
                Some(request) => client.wait_execution(request).await,
                None => client.execute(executed).await,
            };
            let over = match opened {
                Err(status) => Some(status),
                Ok(response) => {
                    let mut stream = response.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(Some(operation)) => {
                                if sender.send(News::Operation(number, Box::new(operation))).is_err() {
                                    break None;
                                }
                            }
                            Ok(None) => break None,
                            Err(status) => break Some(status),
                        }
                    }
                }
            };
            let _ = sender.send(News::Over(number, over));
        })
    }

    /// Follows the stream until the operation is done; a status where it ends before.
    fn watch(
        &mut self,
        watcher: &mut Watcher<'_>,
        tries: &mut Tries,
    ) -> Result<Result<api::ExecuteResponse, Status>, RemoteError> {
        loop {
            let news = match self.news.recv_timeout(GLANCE) {
                Ok(news) => news,
                Err(RecvTimeoutError::Timeout) if !is_cancelled() => continue,
                Err(_) => return Err(RemoteError::Cancelled),
            };
            match news {
                News::Log(bytes) => self.take_log(&bytes, watcher),
                News::LogOver => self.log_is_over = true,
                // What an earlier stream still had to say.
                News::Over(number, _) | News::Operation(number, _) if number != self.streams => {}
                News::Over(_, status) => {
                    let ended = || Status::unavailable("the stream of the operation ended early");
                    return Ok(Err(status.unwrap_or_else(ended)));
                }
                News::Operation(_, operation) => {
                    self.line.answered();
                    tries.reset();
                    if !operation.name.is_empty() {
                        self.name = Some(operation.name.clone());
                    }
                    self.follow_log(operation.metadata.as_ref());
                    if operation.done {
                        self.is_over = true;
                        return self.response(*operation);
                    }
                }
            }
        }
    }

    fn response(&self, operation: operations::Operation) -> Result<Result<api::ExecuteResponse, Status>, RemoteError> {
        match operation.result {
            Some(operations::operation::Result::Response(any)) => {
                let response = api::ExecuteResponse::decode(any.value.as_slice());
                Ok(Ok(response.map_err(|error| {
                    self.line.wrong(format!("its answer cannot be read: {error}"))
                })?))
            }
            // By the rules what happens to an action is in the response; some say it here all the same.
            Some(operations::operation::Result::Error(status)) => Ok(Ok(api::ExecuteResponse {
                status: Some(status),
                ..api::ExecuteResponse::default()
            })),
            None => Err(self.line.wrong("an operation that is done has no result")),
        }
    }

    /// What an answer says; a status where it may be another one if the action is run again.
    fn judge(&mut self, response: api::ExecuteResponse) -> Result<Result<Ended, Status>, RemoteError> {
        let status = response.status.unwrap_or_default();
        let code = Code::from_i32(status.code);
        match (code, response.result) {
            (Code::Ok, Some(result)) => return Ok(Ok(Ended::Result(Box::new(result)))),
            (Code::Ok, None) => return Err(self.line.wrong("an action that ended well has no result")),
            (Code::DeadlineExceeded, _) => return Ok(Ok(Ended::TimedOut)),
            (Code::FailedPrecondition, _) if is_missing(&status.details) => return Ok(Ok(Ended::Missing)),
            _ => {}
        }
        self.is_over = true;
        let message = match response.message.is_empty() {
            true => status.message,
            false => format!("{} ({})", status.message, response.message),
        };
        Ok(Err(Status::new(code, message)))
    }

    /// Begins to read the log, where the operation names its stream.
    fn follow_log(&mut self, metadata: Option<&Any>) {
        let metadata = metadata.and_then(|any| api::ExecuteOperationMetadata::decode(any.value.as_slice()).ok());
        let Some(name) = metadata.map(|metadata| metadata.stdout_stream_name) else {
            return;
        };
        if name.is_empty() || self.log.is_some() {
            return;
        }
        let mut client = streams(self.line.channel());
        let request = self.line.request(ReadRequest {
            resource_name: name,
            read_offset: 0,
            read_limit: 0,
        });
        let (sender, room) = (self.sender.clone(), self.room.clone());
        self.log_is_over = false;
        self.log = Some(self.line.run(async move {
            if let Ok(response) = client.read(request).await {
                let mut pieces = response.into_inner();
                // A log that breaks off is told as far as it came.
                while let Ok(Some(piece)) = pieces.message().await {
                    let Ok(permit) = room.acquire().await else { break };
                    permit.forget();
                    if sender.send(News::Log(piece.data)).is_err() {
                        break;
                    }
                }
            }
            let _ = sender.send(News::LogOver);
        }));
    }

    fn take_log(&self, bytes: &[u8], watcher: &mut Watcher<'_>) {
        self.room.add_permits(1);
        watcher.has_streamed |= !bytes.is_empty();
        (watcher.output)(bytes);
    }

    /// Reads what is left of the log.
    fn drain(&mut self, watcher: &mut Watcher<'_>) {
        while !self.log_is_over {
            match self.news.recv_timeout(LOG_PATIENCE) {
                Ok(News::Log(bytes)) => self.take_log(&bytes, watcher),
                Ok(News::LogOver) | Err(_) => self.log_is_over = true,
                Ok(_) => {}
            }
        }
    }
}

impl Drop for Execution<'_> {
    fn drop(&mut self) {
        let Some(name) = self.name.take().filter(|_| !self.is_over) else {
            return;
        };
        let mut client = operations::operations_client::OperationsClient::new(self.line.channel());
        let request = self.line.request(operations::CancelOperationRequest { name });
        self.line.tell(CANCEL_PATIENCE, async move {
            // Whether it hears of it or not, nothing more can be done.
            let _ = client.cancel_operation(request).await;
        });
    }
}

/// Whether a failed precondition is that blobs are missing.
fn is_missing(details: &[Any]) -> bool {
    details.iter().any(|any| {
        any.type_url.ends_with("google.rpc.PreconditionFailure")
            && PreconditionFailure::decode(any.value.as_slice())
                .is_ok_and(|failure| failure.violations.iter().any(|violation| violation.kind == "MISSING"))
    })
}

/// `google.rpc.PreconditionFailure`, which the crate of the API does not have.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PreconditionFailure {
    /// What was not as it should be.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<Violation>,
}

/// One thing that was not.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Violation {
    /// `MISSING` for a blob.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// `blobs/HASH/SIZE`.
    #[prost(string, tag = "2")]
    pub subject: String,
}

/// The details of an answer that is an error.
fn details(status: &Status) -> Vec<Any> {
    rpc::Status::decode(status.details())
        .map(|status| status.details)
        .unwrap_or_default()
}
