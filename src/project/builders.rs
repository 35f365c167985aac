//! The *builder* of a command: the command line's choice, or the machine's.
//!
//! Invariant: which builder a step ran at is in no digest; a spec names none, as where things are built is the machine's
//! affair.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::build::RemoteBuilds;
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
    pub config: BuilderConfig,
    /// Build here what it does not build.
    pub falls_back: bool,
}

impl Environment<'_> {
    /// The builder of a command, if it has one.
    pub fn builder(&self, options: &WorkOptions) -> Result<Option<Arc<RemoteBuilds>>, ProjectError> {
        let choice = &options.builder;
        let unwalled = options.sandbox == Some(Walls::None);
        if choice.none || choice.at.is_none() && (options.offline || unwalled) {
            return Ok(None);
        }
        let Some(text) = choice.at.as_ref().or(self.builders.default.as_ref()) else {
            return Ok(None);
        };
        if unwalled {
            return Err(ProjectError::BuilderUnwalled);
        }
        let mut builder = match (self.builders.named.get(text), BuilderAddress::is_meant_by(text)) {
            (Some(builder), _) => builder.clone(),
            (None, true) => MachineBuilder {
                config: BuilderConfig::at(text.parse()?),
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
            builder.config.jobs = options.jobs;
        }
        let farm = Farm::new(builder.config, self.registries.http.clone(), &self.store_dir);
        Ok(Some(Arc::new(RemoteBuilds::new(
            farm,
            builder.falls_back || choice.falls_back,
        ))))
    }
}
