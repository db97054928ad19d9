//! What a node is called, what it is, and where it leads.

use crate::atlas::model::{Link, Node, PromptGraph, kind_word};
use crate::format::number::significant;
use crate::format::text::visible;
use crate::format::text::{Part, cut, parts, plain};
use crate::ids::{Component, FeatureId, NodeKind};
use crate::site::links::{Links, plain_href};
use crate::site::text::Html;
use std::collections::BTreeSet;

/// What a head reads, as far as its title tells.
const TOLD: usize = 6;
/// Characters of what a feature is about.
const GIST: usize = 110;
/// Characters of the second line in a mark.
const SHORT: usize = 17;
/// Before its first token, a text that is a list of tokens has no more than this: `Fires at `.
const LEAD: usize = 9;

/// Everything that is said of the nodes of one graph.
pub(crate) struct Names<'a> {
    pub graph: &'a PromptGraph,
    links: Links<'a>,
    /// What the root is, in short and in words.
    root: (String, String),
    /// For each node its links upwards and downwards, the largest share first.
    out: Vec<Vec<&'a Link>>,
    into: Vec<Vec<&'a Link>>,
}

impl<'a> Names<'a> {
    /// `correct` and `counter` are the texts of the answers.
    pub(crate) fn new(
        links: Links<'a>,
        graph: &'a PromptGraph,
        correct: &str,
        counter: &str,
    ) -> Names<'a> {
        let short = |text: &str| visible(&cut(text, 14));
        let root = match graph.difference {
            true => (format!("{} − {}", short(correct), short(counter)), "logit difference"),
            false => (short(correct), "logit of the right answer"),
        };
        let sorted = |end: fn(&Link) -> usize| {
            let mut lists: Vec<Vec<&Link>> = vec![Vec::new(); graph.nodes().len()];
            graph.links().iter().for_each(|link| lists[end(link)].push(link));
            lists.iter_mut().for_each(|list| list.sort_by(|a, b| b.share.total_cmp(&a.share)));
            lists
        };
        Names {
            graph,
            links,
            root: (root.0, root.1.into()),
            out: sorted(|l| l.from),
            into: sorted(|l| l.to),
        }
    }

    fn position(&self, at: usize) -> usize {
        self.graph.position(at)
    }

    fn node(&self, at: usize) -> &'a Node {
        &self.graph.nodes()[at]
    }

    pub(crate) fn out(&self, at: usize) -> &[&'a Link] {
        &self.out[at]
    }

    pub(crate) fn into(&self, at: usize) -> &[&'a Link] {
        &self.into[at]
    }

    /// The dictionary feature that the node is, or that it serves if it is a head.
    pub(crate) fn feature(&self, at: usize) -> Option<FeatureId> {
        self.graph.feature(at)
    }

    /// Short: `att3.51`, `L2H4`, `emb`.
    pub(crate) fn name(&self, at: usize) -> String {
        match self.node(at).kind {
            NodeKind::Root => self.root.0.clone(),
            _ => self.graph.name(at),
        }
    }

    /// The name with its position, for sentences: `att3.51 @ 12`.
    pub(crate) fn placed(&self, at: usize) -> String {
        match self.node(at).kind {
            NodeKind::Root => self.root.1.clone(),
            _ => self.graph.placed(at),
        }
    }

    /// The token at a position, its white space made visible.
    pub(crate) fn token(&self, position: usize) -> String {
        self.graph.tokens.get(position).map(|(_, text)| visible(text)).unwrap_or_default()
    }

    /// What a head serves.
    pub(crate) fn serves(&self, at: usize) -> Option<String> {
        self.graph.serves(at)
    }

    /// The page of the feature or the component; none where there is none.
    pub(crate) fn page(&self, at: usize) -> Option<Html> {
        let node = self.node(at);
        let component = match node.kind {
            NodeKind::Head => Component::Head { layer: node.layer(), head: node.head() },
            NodeKind::MlpError => Component::Mlp { layer: node.layer() },
            _ => return self.feature(at).and_then(|id| self.links.feature(id).href),
        };
        self.links.component(component).href
    }

    /// Where the scripts of features are, as seen from the page; none of a page alone.
    pub(crate) fn scripts(&self) -> Option<String> {
        (!self.links.site.alone).then(|| self.links.href("features/").to_string())
    }

    /// Whether a script tells of a feature; of a page alone, whether there could be anything to tell.
    pub(crate) fn is_told_of(&self, id: FeatureId) -> bool {
        self.links.site.alone || self.links.site.feature(id).is_some()
    }

    /// The page, or else the node's row in the table below the picture.
    pub(crate) fn href(&self, at: usize) -> Html {
        self.page(at).unwrap_or_else(|| plain_href(&format!("#n{at}")))
    }

    /// A few characters on a mark: of a feature its explanation or its tokens, of a head what it
    /// reads.
    pub(crate) fn short(&self, nodes: &[usize]) -> String {
        let Some(&first) = nodes.first() else { return String::new() };
        match self.node(first).kind {
            NodeKind::Root => self.root.1.clone(),
            NodeKind::Embedding => self.token(self.position(first)),
            NodeKind::Head => self.reads(nodes),
            _ => self.feature(first).map_or_else(
                || kind_word(self.node(first).kind).into(),
                |id| brief(&self.links.site.gist(id)),
            ),
        }
    }

    /// The tokens that the nodes of a head read.
    fn reads(&self, nodes: &[usize]) -> String {
        let sources: BTreeSet<usize> = nodes.iter().map(|&at| self.node(at).source()).collect();
        let texts: Vec<String> = sources.iter().map(|&at| self.token(at)).collect();
        let all = format!("reads {}", texts.join(" "));
        match sources.len() {
            n if n > 1 && all.chars().count() > SHORT => format!("reads {n} tokens"),
            _ => cut(&all, SHORT),
        }
    }

    /// Everything about a mark, a line each.
    pub(crate) fn title(&self, nodes: &[usize]) -> String {
        match nodes {
            [at] => self.title_of(*at),
            _ => self.title_of_all(nodes),
        }
    }

    fn title_of_all(&self, nodes: &[usize]) -> String {
        let first = nodes[0];
        let mut lines = vec![format!("{}, attention head", self.name(first))];
        lines.push(format!(
            "at position {} {}",
            self.position(first),
            self.token(self.position(first))
        ));
        let served = |&at: &usize| {
            let source = self.node(at).source();
            let of = self.serves(at).unwrap_or_default();
            format!("reads {source} {} for {of}", self.token(source))
        };
        lines.extend(nodes.iter().take(TOLD).map(served));
        let more = nodes.len().checked_sub(TOLD + 1);
        lines.extend(more.map(|more| format!("and {} more", more + 1)));
        lines.join("\n")
    }

    fn title_of(&self, at: usize) -> String {
        let node = self.node(at);
        let mut lines = vec![self.what(at)];
        if node.kind == NodeKind::Head {
            lines.push(format!("reads position {} {}", node.source(), self.token(node.source())));
        }
        lines.push(format!("at position {} {}", self.position(at), self.token(self.position(at))));
        lines.extend(
            self.graph.circuit.activations[at].map(|a| format!("activation {}", significant(a, 3))),
        );
        lines.extend(self.gist(at));
        lines.join("\n")
    }

    fn what(&self, at: usize) -> String {
        let node = self.node(at);
        let of_root = || format!("{}, {}", self.root.0, self.root.1);
        match self.serves(at) {
            Some(served) => format!("{}, attention head, writes to {served}", self.name(at)),
            None if node.kind == NodeKind::Root => of_root(),
            None => format!("{}, {}", self.name(at), kind_word(node.kind)),
        }
    }

    /// The name, and what is known of a feature.
    pub(crate) fn label(&self, at: usize) -> String {
        match (self.gist(at), self.node(at).kind) {
            (Some(gist), _) => format!("{}: {gist}", self.name(at)),
            (None, NodeKind::Embedding) => format!("emb {}", self.token(self.position(at))),
            (None, _) => self.name(at),
        }
    }

    /// What is known of a feature, in plain text.
    pub(crate) fn gist(&self, at: usize) -> Option<String> {
        let own = matches!(self.node(at).kind, NodeKind::AttentionFeature | NodeKind::MlpFeature);
        let gist = plain(&self.links.site.gist(self.feature(at).filter(|_| own)?), GIST);
        (!gist.is_empty()).then_some(gist)
    }
}

/// The word for the slot that a link enters; empty where there is only one.
pub(crate) fn slot_word(link: &Link) -> &'static str {
    link.slot.word()
}

/// The beginning of an explanation, or its tokens where it is a list of them.
fn brief(gist: &str) -> String {
    let all = parts(gist);
    let lead = match all.first() {
        Some(Part::Words(words)) => words.chars().count(),
        _ => 0,
    };
    let tokens = all.iter().filter_map(|part| match part {
        Part::Token(token) => Some(visible(token)),
        Part::Words(_) => None,
    });
    let tokens: Vec<String> = tokens.collect();
    if lead > LEAD || tokens.is_empty() {
        return cut(&plain(gist, usize::MAX), SHORT);
    }
    let mut out = cut(&tokens[0], SHORT);
    for token in &tokens[1..] {
        if out.chars().count() + 1 + token.chars().count() > SHORT {
            break;
        }
        out = format!("{out} {token}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_shows_tokens_where_they_are_the_explanation_and_words_elsewhere() {
        assert_eq!(brief("Fires at ` to` (8.9%), `.` (8.2%), ` said`; active"), "␣to . ␣said");
        assert_eq!(brief("` Mary` · ` John` · ` Elizabeth`"), "␣Mary ␣John");
        assert_eq!(brief("Names of people after ` and`"), "Names of people a…");
        assert_eq!(brief("` incomprehensibilities`"), "␣incomprehensibil…");
        assert_eq!(brief(""), "");
    }
}
