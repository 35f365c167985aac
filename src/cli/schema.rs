//! `layerize schema`: the JSON Schema of `layerize.toml`, for editors.

use super::context::Context;
use super::outcome::Outcome;

/// Prints the schema.
pub fn run(context: &Context) -> anyhow::Result<Outcome> {
    context
        .ui
        .data(&serde_json::to_string_pretty(&crate::spec::schema())?)?;
    Ok(Outcome::Done)
}
