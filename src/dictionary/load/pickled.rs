//! The config that is pickled with a transcoder's weights. The class that it is an object of need
//! not exist: nothing is made of it, its fields are only looked at.

use super::stated::Stated;
use crate::model::pickle::object;
use candle_core::pickle::Object;
use std::path::Path;

/// The hook that it names, where there is one, and what else it says.
pub(super) fn config(path: &Path) -> (Option<String>, Stated) {
    let Ok(object) = object(path) else { return (None, Stated::default()) };
    let text = |key: &str| match value(&object, key) {
        Some(Object::Unicode(text)) => Some(text.clone()),
        _ => None,
    };
    let number = |key: &'static str| match value(&object, key) {
        Some(Object::Int(n)) => (key, usize::try_from(*n).ok()),
        Some(Object::Long(n)) => (key, usize::try_from(*n).ok()),
        _ => (key, None),
    };
    let flag = |key: &str| match value(&object, key) {
        Some(Object::Bool(flag)) => Some(*flag),
        _ => None,
    };
    let stated = Stated {
        model: text("model_name"),
        d_in: number("d_in"),
        d_sae: number("d_sae"),
        d_out: number("d_out"),
        prepend_bos: flag("prepend_bos"),
    };
    (text("hook_point"), stated)
}

/// The first value of a key in pickled objects.
fn value<'a>(object: &'a Object, key: &str) -> Option<&'a Object> {
    match object {
        Object::Dict(pairs) => pairs.iter().find_map(|pair| match pair {
            (Object::Unicode(name), found) if name == key => Some(found),
            (_, found) => value(found, key),
        }),
        Object::Build { callable, args } | Object::Reduce { callable, args } => {
            value(callable, key).or_else(|| value(args, key))
        }
        Object::Tuple(items) | Object::List(items) => {
            items.iter().find_map(|item| value(item, key))
        }
        _ => None,
    }
}
