//! A dictionary with which the model is better than by itself (`docs/definitions.md` §3).

use crate::ids::DictionaryId;

/// What loss recovered may be at most by chance: 1 is the model itself.
const RECOVERED: f64 = 1.05;

/// Of a reconstruction that predicts the text better than what it reconstructs: the dictionary may
/// be right, and the model wrong.
pub(crate) fn recovery_warning(id: DictionaryId, recovered: Option<f64>) -> Option<String> {
    let share = recovered.filter(|share| *share > RECOVERED)?;
    Some(format!(
        "`{id}` recovers {share:.2} of the loss: with its reconstruction the model predicts \
         better than by itself, so the dictionary or the model may be read wrongly or damaged"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Kind;

    #[test]
    fn a_dictionary_that_makes_the_model_better_is_warned_of() {
        let id = DictionaryId { layer: 1, kind: Kind::Mlp };
        let of = |recovered| recovery_warning(id, recovered);
        assert_eq!([of(None), of(Some(0.98)), of(Some(1.05))], [const { None::<String> }; 3]);
        let warning = of(Some(1.2)).unwrap();
        assert!(warning.starts_with("`mlp1` recovers 1.20 of the loss: "), "{warning}");
    }
}
