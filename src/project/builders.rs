//! The *builder* of a command: the command line's choice, or the machine's.
//!
//! Invariant: which builder a step ran at is in no digest; a spec names none, as where things are built is the machine's
//! affair.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::build::{Builder, RemoteBuilds};
use crate::peer::{DEFAULT_PEER_JOBS, PeerBuilder, SshAddress};
use crate::remote::{BuilderAddress, BuilderConfig, Farm};
use crate::walls::Walls;

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;

/// What the command line says of builders.
#[derive(Debug, Clone, Default)]
pub struct BuilderChoice {
    /// An address, or a name of the configuration.
    pub at: Option<String>,
    /// Build here what it does not build.
    pub falls_back: bool,
    /// Build here in any case.
    pub none: bool,
}

/// What the machine's configuration says of builders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineBuilders {
    /// The one that builds unless the command line says otherwise: a name or an address.
    pub default: Option<String>,
    /// All that have names.
    pub named: BTreeMap<String, MachineBuilder>,
}

/// A builder of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineBuilder {
    /// How it is reached and asked.
    pub place: BuilderPlace,
    /// Build here what it does not build.
    pub falls_back: bool,
}

/// How a builder is reached and asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuilderPlace {
    /// A server of the Remote Execution API.
    Farm(BuilderConfig),
    /// Layerize on another machine.
    Peer {
        /// Where it is.
        address: SshAddress,
        /// Most steps under way there.
        jobs: usize,
    },
}

impl BuilderPlace {
    /// A builder of which nothing is known but where it is.
    pub fn at(text: &str) -> Result<Self, ProjectError> {
        Ok(match SshAddress::is_meant_by(text) {
            true => Self::Peer {
                address: text.parse()?,
                jobs: DEFAULT_PEER_JOBS,
            },
            false => Self::Farm(BuilderConfig::at(text.parse()?)),
        })
    }

    /// The same with so many steps under way at most.
    #[must_use]
    pub fn with_jobs(mut self, most: usize) -> Self {
        match &mut self {
            Self::Farm(config) => config.jobs = most,
            Self::Peer { jobs, .. } => *jobs = most,
        }
        self
    }
}

impl Environment<'_> {
    /// What was chosen as the builder of a command: a name, or an address.
    pub(super) fn chosen_builder<'a>(&'a self, options: &'a WorkOptions) -> Option<&'a String> {
        let choice = &options.builder;
        let stays_here = options.offline || options.sandbox == Some(Walls::None);
        if choice.none || choice.at.is_none() && stays_here {
            return None;
        }
        choice.at.as_ref().or(self.builders.default.as_ref())
    }

    /// Whether a command's builder is a farm, of whose walls little is known. Layerize on another machine knows its own.
    pub(super) fn has_farm(&self, options: &WorkOptions) -> bool {
        let is_farm = |text: &String| match self.builders.named.get(text) {
            Some(builder) => matches!(builder.place, BuilderPlace::Farm(_)),
            None => !SshAddress::is_meant_by(text),
        };
        self.chosen_builder(options).is_some_and(is_farm)
    }

    /// The builder of a command, if it has one.
    pub fn builder(&self, options: &WorkOptions) -> Result<Option<Arc<RemoteBuilds>>, ProjectError> {
        let Some(text) = self.chosen_builder(options) else {
            return Ok(None);
        };
        if options.sandbox == Some(Walls::None) {
            return Err(ProjectError::BuilderUnwalled);
        }
        let mut builder = match (self.builders.named.get(text), BuilderAddress::is_meant_by(text)) {
            (Some(builder), _) => builder.clone(),
            (None, true) => MachineBuilder {
                place: BuilderPlace::at(text)?,
                falls_back: false,
            },
            (None, false) => {
                return Err(ProjectError::UnknownBuilder {
                    name: text.clone(),
                    known: self.builders.named.keys().cloned().collect(),
                });
            }
        };
        if options.jobs > 0 {
            builder.place = builder.place.with_jobs(options.jobs);
        }
        let place = match builder.place {
            BuilderPlace::Farm(config) => Builder::Farm(Box::new(Farm::new(
                config,
                self.registries.http.clone(),
                &self.store_dir,
            ))),
            BuilderPlace::Peer { address, jobs } => Builder::Peer(PeerBuilder::new(address, jobs)),
        };
        Ok(Some(Arc::new(RemoteBuilds::new(
            place,
            builder.falls_back || options.builder.falls_back,
        ))))
    }
}
