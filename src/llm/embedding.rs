//! What an embedder is asked about an explanation: how similar it is to each of some texts.

use super::{ChatRole, Form, Message, Question};
use crate::ids::Subject;
use serde::Deserialize;
use serde_json::{Value, json};

/// The form's name, the purpose in the ledger, and the method.
pub(super) const EMBEDDING: &str = "embedding";

/// The question how similar an explanation is to some texts, each as the embedder wants it.
#[must_use]
pub fn question(subject: &Subject, model: &str, explanation: &str, texts: &[String]) -> Question {
    let message = |text: &str| Message { role: ChatRole::User, text: text.into() };
    let all = [explanation].into_iter().chain(texts.iter().map(String::as_str));
    let schema = json!({
        "type": "object",
        "properties": { "cosines": { "type": "array", "items": { "type": "number" } } },
        "required": ["cosines"],
        "additionalProperties": false,
    });
    Question {
        subject: subject.clone(),
        purpose: EMBEDDING,
        model: model.into(),
        sample: 0,
        messages: all.map(message).collect(),
        form: Form { name: EMBEDDING, schema },
    }
}

/// What is kept of a reply: the cosine of the first embedding and each of the others. The vectors
/// themselves are of no further use, and large.
///
/// # Errors
/// What is wrong with it.
pub(super) fn cosines(body: &Value, inputs: usize) -> Result<Value, &'static str> {
    let Some(data) = body["data"].as_array() else { return Err("a reply without embeddings") };
    let mut vectors: Vec<Option<Vec<f64>>> = vec![None; inputs];
    for (place, one) in data.iter().enumerate() {
        let index = one["index"].as_u64().map_or(place, |index| index as usize);
        let numbers = one["embedding"].as_array().into_iter().flatten().map(Value::as_f64);
        let vector: Option<Vec<f64>> = numbers.collect();
        let Some(slot) = vectors.get_mut(index) else { return Err("more embeddings than texts") };
        *slot = vector.filter(|vector| !vector.is_empty());
    }
    let vectors: Option<Vec<Vec<f64>>> = vectors.into_iter().collect();
    let Some(vectors) = vectors else { return Err("fewer embeddings than texts") };
    let first = &vectors[0];
    if vectors.iter().any(|vector| vector.len() != first.len()) {
        return Err("embeddings of different lengths");
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |vector: &Vec<f64>| {
        let norms = (dot(first, first) * dot(vector, vector)).sqrt();
        if norms > 0.0 { dot(first, vector) / norms } else { 0.0 }
    };
    let cosines: Vec<f64> = vectors[1..].iter().map(cosine).collect();
    match cosines.iter().all(|cosine| cosine.is_finite()) {
        true => Ok(json!({ "cosines": cosines })),
        false => Err("embeddings that are not finite"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    cosines: Vec<f64>,
}

/// Reads the similarity of each text.
///
/// # Errors
/// What is wrong with it.
pub fn read(question: &Question, reply: &Value) -> Result<Vec<f64>, String> {
    let Reply { cosines } = Reply::deserialize(reply).map_err(|error| error.to_string())?;
    match cosines.len() + 1 == question.messages.len() {
        true => Ok(cosines),
        false => {
            Err(format!("{} similarities of {} texts", cosines.len(), question.messages.len() - 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_of_the_first_embedding_wherever_it_stands() {
        let body = json!({ "data": [
            { "index": 2, "embedding": [0, 2.0] },
            { "index": 0, "embedding": [3.0, 0] },
            { "index": 1, "embedding": [1.0, 1.0] },
        ] });
        let reply = cosines(&body, 3).unwrap();
        let texts = ["a".to_string(), "b".to_string()];
        let question = question(&"att0.1".parse().unwrap(), "m", "x", &texts);
        let read = read(&question, &reply).unwrap();
        assert!((read[0] - 0.5f64.sqrt()).abs() < 1e-12 && read[1] == 0.0, "{read:?}");
    }

    #[test]
    fn embeddings_that_do_not_fit_are_refused() {
        let of = |vectors: &[&[f64]], inputs| {
            let data: Vec<Value> = vectors.iter().map(|v| json!({ "embedding": v })).collect();
            cosines(&json!({ "data": data }), inputs).unwrap_err()
        };
        assert_eq!(of(&[&[1.0]], 2), "fewer embeddings than texts");
        assert_eq!(of(&[&[1.0], &[]], 2), "fewer embeddings than texts");
        assert_eq!(of(&[&[1.0], &[1.0], &[1.0]], 2), "more embeddings than texts");
        assert_eq!(of(&[&[1.0], &[1.0, 2.0]], 2), "embeddings of different lengths");
        assert_eq!(of(&[&[1e200], &[1e200]], 2), "embeddings that are not finite");
        assert_eq!(cosines(&json!({ "error": 1 }), 2).unwrap_err(), "a reply without embeddings");
    }
}
