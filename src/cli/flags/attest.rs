//! The flags of commands that make documents about images.

use clap::{Args, ValueEnum};

use crate::attest::SbomFormat;
use crate::cli::error::advised;
use crate::project::attach;
use crate::project::documents::DocumentOptions;
use crate::transport::Location;

/// Forms of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SbomForm {
    /// SPDX 2.3, JSON
    Spdx,
    /// CycloneDX 1.6, JSON
    Cyclonedx,
}

impl From<SbomForm> for SbomFormat {
    fn from(form: SbomForm) -> Self {
        match form {
            SbomForm::Spdx => Self::Spdx,
            SbomForm::Cyclonedx => Self::CycloneDx,
        }
    }
}

/// What `build` makes beside an image.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Attestation options")]
pub struct AttestFlags {
    /// Make a bill of materials in this form; repeat or separate by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORMAT")]
    sbom: Vec<SbomForm>,
    /// Make SLSA v1 provenance
    #[arg(long)]
    provenance: bool,
    /// Attach the documents to the image in its OCI layout or registry, as referrers
    #[arg(long)]
    attach: bool,
    /// Write the documents to files beside the image: NAME.spdx.json, NAME.cdx.json, NAME.provenance.json [default]
    #[arg(long)]
    beside: bool,
}

impl AttestFlags {
    /// The flags as the options they stand for.
    pub fn options(&self) -> DocumentOptions {
        let Self {
            sbom,
            provenance,
            attach,
            beside,
        } = self;
        DocumentOptions {
            sboms: sbom.iter().map(|&form| form.into()).collect(),
            provenance: *provenance,
            attach: *attach,
            beside: *beside || !attach,
        }
    }

    /// Refuses what cannot be done before anything is built for it.
    pub fn check(&self, locations: &[Location]) -> anyhow::Result<()> {
        if !self.options().any() && (self.attach || self.beside) {
            return Err(advised(
                "there is nothing to attach or to write beside the image",
                "add `--sbom spdx`, `--sbom cyclonedx` or `--provenance`",
            ));
        }
        if self.attach && locations.is_empty() {
            return Err(advised(
                "`--attach` needs a layout or a registry: NAME.tar cannot hold referrers",
                "add `-o oci:DIR` or `-o docker://NAME`, or use `--beside`",
            ));
        }
        if self.attach {
            locations.iter().try_for_each(attach::check_place)?;
        }
        Ok(())
    }
}
