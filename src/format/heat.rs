//! How strong a colour shows an activation.

/// Steps of heat; the style sheet has a class for each, `a1` … `a20`.
pub(crate) const STEPS: usize = 20;

/// The step of heat of a value, 0 of none, where `max` is the hottest.
pub(crate) fn heat(value: impl Into<f64>, max: impl Into<f64>) -> usize {
    let (value, max) = (value.into(), max.into());
    if !(value > 0.0 && max > 0.0) {
        return 0;
    }
    ((value / max * STEPS as f64).ceil() as usize).clamp(1, STEPS)
}
