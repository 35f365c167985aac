//! *Passing on*: what was found in one shared cache, kept in the others that are written.
//!
//! Invariant: nothing of it is made here; what cannot be passed on is told, and what it was found for goes on.

use super::{Caches, RENEWED_AT_ONCE};
use crate::event::Event;
use crate::fsio::with_causes;
use crate::parallel;
use crate::project::environment::Environment;
use crate::project::error::ProjectError;
use crate::project::kept;
use crate::project::request::SharedImage;
use crate::shared_cache::CachePlace;

impl Caches {
    /// Keeps an image that was found in one place in all others that are written, with the entries of the steps that lead to it
    /// and, if `keeps_inputs`, what it was built from. `beside` has its layers.
    pub fn pass_on(
        &self,
        shared: &SharedImage,
        beside: &[(String, String)],
        keeps_inputs: bool,
        environment: &Environment<'_>,
    ) {
        let others = self.to.iter().filter(|place| !place.is_same(&shared.place));
        for place in others.filter(|place| place.keeps_images() && place.answers()) {
            if let Err(error) = self.pass_on_to(place, shared, beside, keeps_inputs, environment) {
                if let ProjectError::SharedCache(error) = &error {
                    place.note(error);
                }
                let text = format!(
                    "`{}` is not passed on to `{}`: {}",
                    shared.made.image.digest(),
                    place.name(),
                    with_causes(&error)
                );
                environment.reporter.report(Event::Warning { text });
            }
        }
    }

    fn pass_on_to(
        &self,
        place: &CachePlace,
        shared: &SharedImage,
        beside: &[(String, String)],
        keeps_inputs: bool,
        environment: &Environment<'_>,
    ) -> Result<(), ProjectError> {
        let reporter = environment.reporter;
        let signing = (&self.signers, self.now);
        if !place.publish_image(&shared.key, &shared.made, &self.signers, self.now, beside, reporter)? {
            // With it went the rest.
            return Ok(());
        }
        let passed = parallel::map(&shared.steps, RENEWED_AT_ONCE, |key| {
            place.take_over(&shared.place, key, &self.trust, signing, reporter)
        });
        passed?;
        if let (true, Some(location)) = (keeps_inputs, place.location()) {
            kept::copy(shared, std::slice::from_ref(location), environment)?;
        }
        Ok(())
    }
}
