//! What only fuzz targets call; compiled with `--cfg fuzzing`.

use super::reply::{fitted, object, says_nothing, shortened};
use crate::error::Result;
use anyhow::Error;
use serde_json::json;

/// Reads a reply as if any question had been asked.
///
/// # Errors
/// When there is no object in it.
pub fn reply(text: &str) -> Result<()> {
    let schema = json!({
        "type": "object",
        "properties": {
            "explanation": { "type": "string" },
            "list": { "type": "array", "maxItems": 3, "items": { "type": "integer" } },
            "share": { "type": "number" },
            "sure": { "type": "boolean" },
            "word": { "type": "string", "enum": ["high", "low"] },
            "any": { "type": ["string", "null"] },
        },
        "additionalProperties": false,
    });
    let short = shortened(text, 40).map_or(0, |short| short.chars().count());
    assert!(short <= 40, "a text that was shortened is too long");
    let found = object(text).map_err(Error::msg)?;
    assert!(found.is_object() && !says_nothing(text), "no answer was read as one");
    let fit = fitted(&schema, found);
    assert_eq!(fitted(&schema, fit.clone()), fit, "what is in form was changed");
    Ok(())
}
