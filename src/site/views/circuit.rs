//! The picture of a task's circuit with its legend.

use crate::atlas::model::Task;
use crate::site::circuit::{CircuitPicture, Size, circuit_picture};
use crate::site::links::Links;
use crate::site::text::Html;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct PictureView {
    picture: Html,
    caption: String,
    /// Its links are parts of the task's measure, not direct effects.
    by_gradient: bool,
}

impl PictureView {
    pub(super) fn of(links: Links, task: &Task, size: Size) -> Option<PictureView> {
        let CircuitPicture { svg, caption } = circuit_picture(links, task, size)?;
        Some(PictureView { picture: svg, caption, by_gradient: task.method == "gradient" })
    }
}
