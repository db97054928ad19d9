//! What tokens cost, by the price table of the settings.

use crate::config::Llm;

/// Tokens that one price is for.
const UNIT: f64 = 1e6;

/// What so many tokens cost, asked and answered; none where the model has no price.
pub(super) fn price(
    llm: &Llm,
    model: &str,
    prompt_tokens: u64,
    completion_tokens: u64,
) -> Option<f64> {
    let [asked, answered] = llm.prices.get(model)?;
    Some((prompt_tokens as f64 * asked + completion_tokens as f64 * answered) / UNIT)
}
