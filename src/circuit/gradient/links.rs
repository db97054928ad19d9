//! A feature's score split by what reads it: `f → g` is `(a_f − r_f)·D(f → g)·γ_g`, the mean over
//! the points, where `γ_g` is the gradient at g's pre-activation and `D` the derivative of that
//! pre-activation by what f writes, all other hooks held.
//!
//! Over all receivers and the root these sum to the score of `f`. What reaches an attention feature
//! is split by head and source, and into what enters the head's value, query and key. All effects
//! are in the metric's unit.

use super::{Back, Gradient, PartialHooks, numbers};
use crate::circuit::graph::{Edge, Graph, Node};
use crate::circuit::replacement::dot;
use crate::error::Result;
use crate::ids::{DictionaryId, FeatureId, Kind};
use crate::ids::{NodeKind, Slot};
use candle_core::Tensor;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

/// The features of a circuit, with what links between them take.
pub struct Members {
    layers: usize,
    heads: usize,
    d_head: usize,
    d_model: usize,
    /// By hook.
    of_hook: Vec<Hook>,
    /// By layer, `[3, H, D, K]`: each head's blocks of `W_Q|W_K|W_V`.
    blocks: Vec<Vec<f64>>,
}

struct Hook {
    names: Vec<u32>,
    /// Into the residual stream, `[m, D]`
    writes: Vec<f64>,
    /// `[m, d_in]`
    reads: Vec<f64>,
    d_in: usize,
}

impl Members {
    /// # Errors
    /// When a dictionary cannot be read.
    pub fn new(gradient: &Gradient, features: &BTreeSet<FeatureId>) -> Result<Members> {
        let sizes = &gradient.model.sizes;
        let hook = |id: DictionaryId| -> Result<Hook> {
            let chosen: Vec<usize> =
                features.iter().filter(|f| f.dictionary == id).map(|f| f.index).collect();
            let dictionary = gradient.replacement.dictionary(id);
            let d_in = dictionary.b_in().len();
            let reads = numbers(&dictionary.select(&chosen)?.w)?;
            let rows = gradient.replacement.write_rows(id, &chosen)?;
            let w_o = &gradient.model.layers[id.layer].w_o;
            let rows =
                Tensor::from_vec(rows, (chosen.len(), dictionary.b_out().len()), w_o.device())?;
            let rows = rows.to_dtype(gradient.dtype)?;
            let writes = match id.kind {
                Kind::Attention if !chosen.is_empty() => rows.matmul(w_o)?,
                _ => rows,
            };
            Ok(Hook {
                names: chosen.iter().map(|&f| f as u32).collect(),
                writes: numbers(&writes)?,
                reads,
                d_in,
            })
        };
        let (d, h, k) = (sizes.d_model, sizes.heads, sizes.d_head);
        let blocks = |layer: &crate::model::Layer| {
            numbers(&layer.w_qkv.reshape((d, 3, h, k))?.permute((1, 2, 0, 3))?)
        };
        Ok(Members {
            layers: sizes.layers,
            heads: h,
            d_head: k,
            d_model: d,
            of_hook: DictionaryId::all(sizes.layers).map(hook).collect::<Result<_>>()?,
            blocks: gradient.model.layers.iter().map(blocks).collect::<Result<_>>()?,
        })
    }

    /// A direction of head space taken back through a head's block: `W·x`, `[D]`
    fn through(&self, layer: usize, block: usize, head: usize, x: &[f64]) -> Vec<f64> {
        let size = self.d_model * self.d_head;
        let w = &self.blocks[layer][(block * self.heads + head) * size..][..size];
        w.chunks_exact(self.d_head).map(|row| dot(row, x)).collect()
    }
}

/// One point's numbers, as slices.
struct Numbers {
    /// By hook, `a − r` and the gradient at the pre-activation of each member, `[T, m]`
    change: Vec<Vec<f64>>,
    at_pre: Vec<Vec<f64>>,
    /// By hook, what its LayerNorm gives, `[T, D]`, and divides by, `[T]`
    norm: Vec<(Vec<f64>, Vec<f64>)>,
    /// By layer: q, k, v `[H, T, K]` and the pattern `[H, T, T]`
    attended: Vec<[Vec<f64>; 4]>,
    /// `[D]`
    at_end: Vec<f64>,
}

/// Something that writes into the residual stream at a position.
struct Term {
    node: Node,
    /// The hook that writes it; none for a token's embedding.
    hook: Option<usize>,
    /// `a − r` at each point.
    changes: Vec<f64>,
    write: Rc<[f64]>,
}

/// A direction of the residual stream at each point, `[D]`
type Directions = Rc<Vec<Vec<f64>>>;

/// The links of one prompt's circuit.
pub struct GradientLinks<'a> {
    members: &'a Members,
    points: Vec<Numbers>,
    /// By position, in the order in which they are written.
    terms: Vec<Vec<Term>>,
    tokens: usize,
    /// `Σ|effect|` on the root of every feature of the prompt and of its embeddings, not of members
    /// alone.
    root_whole: f64,
    /// Directions along which a head's queries or keys are read, by block, layer, head and
    /// position.
    directions: RefCell<HashMap<[usize; 4], Directions>>,
}

/// What reaches a receiver.
#[derive(Clone, Copy, Debug)]
pub struct Reaching {
    pub child: Node,
    /// The head and source through which it does, for attention features.
    pub through: Option<(usize, usize)>,
    pub slot: Slot,
    pub effect: f64,
}

impl<'a> GradientLinks<'a> {
    /// `embedding` is how the tokens' embeddings differ from those of what stands in, `[T, D]`.
    pub fn new(
        gradient: &Gradient,
        members: &'a Members,
        hooks: &PartialHooks,
        backs: &[Back],
        embedding: Option<&Tensor>,
    ) -> Result<GradientLinks<'a>> {
        let tokens = backs.first().map_or(0, |back| back.point_tokens());
        let points = backs
            .iter()
            .map(|back| Numbers::of(members, hooks, back))
            .collect::<Result<Vec<_>>>()?;
        let mut links = GradientLinks {
            members,
            points,
            terms: Vec::new(),
            tokens,
            root_whole: 0.0,
            directions: RefCell::default(),
        };
        let embedding = embedding.map(numbers).transpose()?;
        links.terms = (0..tokens).map(|p| links.terms_at(p, embedding.as_deref())).collect();
        links.root_whole =
            root_whole(gradient, hooks, backs)? + links.of_root(|term| term.hook.is_none());
        Ok(links)
    }

    fn terms_at(&self, p: usize, embedding: Option<&[f64]>) -> Vec<Term> {
        let d = self.members.d_model;
        let token =
            embedding.map(|rows| &rows[p * d..][..d]).filter(|row| row.iter().any(|x| *x != 0.0));
        let token = token.map(|row| Term {
            node: Node::embedding(NodeKind::Embedding, p),
            hook: None,
            changes: vec![1.0; self.points.len()],
            write: row.into(),
        });
        let mut terms: Vec<Term> = token.into_iter().collect();
        for (i, hook) in self.members.of_hook.iter().enumerate() {
            let m = hook.names.len();
            for (j, &f) in hook.names.iter().enumerate() {
                let changes: Vec<f64> =
                    self.points.iter().map(|point| point.change[i][p * m + j]).collect();
                if changes.iter().any(|change| *change != 0.0) {
                    let kind = if i % 2 == 0 { Kind::Attention } else { Kind::Mlp };
                    let node = Node::feature(kind, i / 2, p, f);
                    terms.push(Term {
                        node,
                        hook: Some(i),
                        changes,
                        write: hook.writes[j * d..][..d].into(),
                    });
                }
            }
        }
        terms
    }

    /// What is written at a position before a hook reads.
    fn before(&self, hook: usize, p: usize) -> &[Term] {
        let terms = &self.terms[p];
        &terms[..terms.partition_point(|term| term.hook.is_none_or(|by| by < hook))]
    }

    fn of_root(&self, wanted: impl Fn(&Term) -> bool) -> f64 {
        let Some(last) = self.terms.last() else { return 0.0 };
        last.iter().filter(|term| wanted(term)).map(|term| self.on_root(term).abs()).sum()
    }

    fn on_root(&self, term: &Term) -> f64 {
        self.mean(|i| term.changes[i] * dot(&term.write, &self.points[i].at_end))
    }

    fn mean(&self, of: impl Fn(usize) -> f64) -> f64 {
        (0..self.points.len()).map(of).sum::<f64>() / self.points.len() as f64
    }

    /// All that reaches the root, a member or, through its heads, an attention member.
    pub fn reaching(&self, node: &Node) -> Vec<Reaching> {
        match node.kind {
            NodeKind::Root => {
                let last = self.terms.last().map(Vec::as_slice).unwrap_or_default();
                last.iter().map(|term| reaching(term, None, Slot::In, self.on_root(term))).collect()
            }
            NodeKind::MlpFeature => self.reaching_mlp(node),
            NodeKind::AttentionFeature => self.reaching_heads(node),
            _ => Vec::new(),
        }
    }

    /// The gradient at a member's pre-activation times what it reads, at one point; none if it is
    /// no member.
    fn reads(&self, node: &Node, hook: usize, point: usize) -> Option<Vec<f64>> {
        let own = &self.members.of_hook[hook];
        let at = own.names.binary_search(&node.feature?).ok()?;
        let gamma = self.points[point].at_pre[hook][node.position() * own.names.len() + at];
        (gamma != 0.0)
            .then(|| own.reads[at * own.d_in..][..own.d_in].iter().map(|x| gamma * x).collect())
    }

    fn reaching_mlp(&self, node: &Node) -> Vec<Reaching> {
        let (hook, p) = (2 * node.layer() + 1, node.position());
        let terms = self.before(hook, p);
        let mut effects = vec![0.0; terms.len()];
        for i in 0..self.points.len() {
            let Some(read) = self.reads(node, hook, i) else { continue };
            self.add(&mut effects, terms, i, &self.normed(i, hook, p, &read), 1.0);
        }
        self.rows(terms, &effects, None, Slot::In)
    }

    /// Adds the terms' effects along a direction of the residual stream.
    fn add(&self, effects: &mut [f64], terms: &[Term], point: usize, along: &[f64], times: f64) {
        if times != 0.0 {
            for (effect, term) in effects.iter_mut().zip(terms) {
                *effect += times * term.changes[point] * dot(&term.write, along);
            }
        }
    }

    fn rows(
        &self,
        terms: &[Term],
        effects: &[f64],
        through: Option<(usize, usize)>,
        slot: Slot,
    ) -> Vec<Reaching> {
        let n = self.points.len() as f64;
        let some = terms.iter().zip(effects).filter(|(_, effect)| **effect != 0.0);
        some.map(|(term, effect)| reaching(term, through, slot, effect / n)).collect()
    }

    /// The gradient at what a hook's LayerNorm gives at a position → at the residual stream.
    fn normed(&self, point: usize, hook: usize, p: usize, g: &[f64]) -> Vec<f64> {
        let (y, sigma) = &self.points[point].norm[hook];
        let d = self.members.d_model;
        let y = &y[p * d..][..d];
        let along = dot(y, g) / d as f64;
        g.iter().zip(y).map(|(g, y)| (g - y * along) / sigma[p]).collect()
    }

    fn reaching_heads(&self, node: &Node) -> Vec<Reaching> {
        let (l, p) = (node.layer(), node.position());
        let reads: Vec<Option<Vec<f64>>> =
            (0..self.points.len()).map(|i| self.reads(node, 2 * l, i)).collect();
        let mut all = Vec::new();
        for head in 0..self.members.heads {
            all.extend(self.reaching_head(l, head, p, &reads));
        }
        all
    }

    fn reaching_head(
        &self,
        l: usize,
        head: usize,
        p: usize,
        reads: &[Option<Vec<f64>>],
    ) -> Vec<Reaching> {
        let (k, t) = (self.members.d_head, self.tokens);
        let terms_at: Vec<&[Term]> = (0..=p).map(|s| self.before(2 * l, s)).collect();
        let zeros = |s: usize| vec![0.0; terms_at[s].len()];
        let [mut by_v, mut by_k]: [Vec<Vec<f64>>; 2] = [0; 2].map(|_| (0..=p).map(zeros).collect());
        let mut by_q: Vec<Vec<f64>> = (0..=p).map(|_| zeros(p)).collect();
        for (i, read) in reads.iter().enumerate() {
            let Some(read) = read else { continue };
            let g = &read[head * k..][..k];
            let [_, _, v, pattern] = &self.points[i].attended[l];
            let pattern = &pattern[(head * t + p) * t..][..=p];
            let at_pattern: Vec<f64> =
                (0..=p).map(|s| dot(g, &v[(head * t + s) * k..][..k])).collect();
            let along = dot(pattern, &at_pattern);
            let value = self.members.through(l, 2, head, g);
            let keys = self.direction(1, l, head, p);
            for s in 0..=p {
                self.add(
                    &mut by_v[s],
                    terms_at[s],
                    i,
                    &self.normed(i, 2 * l, s, &value),
                    pattern[s],
                );
                let at_score = pattern[s] * (at_pattern[s] - along) / (k as f64).sqrt();
                self.add(
                    &mut by_k[s],
                    terms_at[s],
                    i,
                    &self.normed(i, 2 * l, s, &keys[i]),
                    at_score,
                );
                let queries = self.direction(0, l, head, s);
                self.add(
                    &mut by_q[s],
                    terms_at[p],
                    i,
                    &self.normed(i, 2 * l, p, &queries[i]),
                    at_score,
                );
            }
        }
        let mut all = Vec::new();
        for s in 0..=p {
            let through = Some((head, s));
            all.extend(self.rows(terms_at[s], &by_v[s], through, Slot::V));
            all.extend(self.rows(terms_at[p], &by_q[s], through, Slot::Q));
            all.extend(self.rows(terms_at[s], &by_k[s], through, Slot::K));
        }
        all
    }

    /// At each point, what meets a head's query at its destination (block 1: along which keys are
    /// read), or its key at a source (block 0: along which queries are read), `[D]`
    fn direction(&self, block: usize, l: usize, head: usize, at: usize) -> Directions {
        let mut known = self.directions.borrow_mut();
        let made = known.entry([block, l, head, at]).or_insert_with(|| {
            let (k, t) = (self.members.d_head, self.tokens);
            let other =
                |i: usize| &self.points[i].attended[l][1 - block][(head * t + at) * k..][..k];
            Rc::new(
                (0..self.points.len())
                    .map(|i| self.members.through(l, block, head, other(i)))
                    .collect(),
            )
        });
        made.clone()
    }

    /// The circuit: from the root back along every link whose effect is at least `share` of all
    /// that reaches the root. All effects are in the root's unit, so a link to something that
    /// hardly matters is small itself. A link's own share is of what reaches its receiver from
    /// members and tokens.
    pub fn graph(&self, share: f64) -> Graph {
        let least = share * self.root_whole;
        let mut edges = Vec::new();
        let mut seen = BTreeSet::from([Node::ROOT]);
        let mut open = VecDeque::from([Node::ROOT]);
        while let Some(node) = open.pop_front() {
            let reaching = self.reaching(&node);
            let from = match node.kind {
                NodeKind::AttentionFeature => self.through_heads(&node, &reaching, least),
                _ => kept(&node, &reaching, least, (node == Node::ROOT).then_some(self.root_whole)),
            };
            for edge in from {
                if edge.child.kind != NodeKind::Head && seen.insert(edge.child) {
                    open.push_back(edge.child);
                }
                edges.push(edge);
            }
        }
        Graph::of(edges)
    }

    fn through_heads(&self, node: &Node, reaching: &[Reaching], least: f64) -> Vec<Edge> {
        let mut heads: BTreeMap<Node, Vec<Reaching>> = BTreeMap::new();
        for one in reaching {
            let Some((head, source)) = one.through else { continue };
            heads.entry(node.through(head, source)).or_default().push(*one);
        }
        let each: Vec<Reaching> = heads.iter().map(|(head, all)| of_head(*head, all)).collect();
        let mut edges = kept(node, &each, least, None);
        let linked: Vec<Node> = edges.iter().map(|edge| edge.child).collect();
        for head in linked {
            for slot in [Slot::Q, Slot::K, Slot::V] {
                let own: Vec<Reaching> =
                    heads[&head].iter().filter(|one| one.slot == slot).copied().collect();
                edges.extend(kept(&head, &own, least, None));
            }
        }
        edges
    }
}

fn of_head(head: Node, all: &[Reaching]) -> Reaching {
    Reaching {
        child: head,
        through: None,
        slot: Slot::In,
        effect: all.iter().map(|one| one.effect).sum(),
    }
}

fn reaching(term: &Term, through: Option<(usize, usize)>, slot: Slot, effect: f64) -> Reaching {
    Reaching { child: term.node, through, slot, effect }
}

/// Those that are large enough, the largest first. `whole`: the sum of the sizes of all that
/// reaches the receiver, where it is not of these alone.
fn kept(parent: &Node, all: &[Reaching], least: f64, whole: Option<f64>) -> Vec<Edge> {
    let sum = whole.unwrap_or_else(|| all.iter().map(|one| one.effect.abs()).sum());
    let edge = |one: &Reaching| Edge {
        child: one.child,
        parent: *parent,
        slot: one.slot,
        effect: one.effect as f32,
        share: if sum > 0.0 { (one.effect.abs() / sum) as f32 } else { 0.0 },
    };
    let mut edges: Vec<Edge> =
        all.iter().filter(|one| one.effect != 0.0 && one.effect.abs() >= least).map(edge).collect();
    edges.sort_by(|a, b| {
        b.share.total_cmp(&a.share).then((a.child, a.slot).cmp(&(b.child, b.slot)))
    });
    edges
}

impl Numbers {
    fn of(members: &Members, hooks: &PartialHooks, back: &Back) -> Result<Numbers> {
        let (mut change, mut at_pre, mut norm) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (parts, own)) in hooks.parts.iter().zip(&members.of_hook).enumerate() {
            let columns: Vec<Option<usize>> =
                own.names.iter().map(|f| parts.names.binary_search(f).ok()).collect();
            let picked = |x: &Tensor| -> Result<Vec<f64>> {
                let (t, n) = x.dims2()?;
                let x = numbers(x)?;
                let row = |p: usize| columns.iter().map(move |c| c.map(|c| p * n + c));
                Ok((0..t).flat_map(row).map(|at| at.map_or(0.0, |at| x[at])).collect())
            };
            change.push(picked(back.change(i))?);
            at_pre.push(picked(&back.at_pre(i)?)?);
            let (y, sigma) = back.norm(i / 2, i % 2 == 1);
            norm.push((numbers(y)?, numbers(sigma)?));
        }
        let attended = |l: usize| -> Result<[Vec<f64>; 4]> {
            let of = back.attended(l);
            Ok([numbers(&of.q)?, numbers(&of.k)?, numbers(&of.v)?, numbers(&of.pattern)?])
        };
        Ok(Numbers {
            change,
            at_pre,
            norm,
            attended: (0..members.layers).map(attended).collect::<Result<_>>()?,
            at_end: numbers(back.at_end())?,
        })
    }
}

/// `Σ|effect|` of every feature of the prompt on the root.
fn root_whole(gradient: &Gradient, hooks: &PartialHooks, backs: &[Back]) -> Result<f64> {
    let mut whole = 0.0;
    for (i, parts) in hooks.parts.iter().enumerate() {
        let mut sum = vec![0.0; parts.names.len()];
        for back in backs {
            let at_end = match parts.id.kind {
                Kind::Attention => {
                    back.at_end().matmul(&gradient.model.layers[parts.id.layer].w_o.t()?)?
                }
                Kind::Mlp => back.at_end().clone(),
            };
            let change = back.change(i);
            let last = change.narrow(0, change.dim(0)? - 1, 1)?;
            let effects = numbers(&(last * parts.at_parts_of_row(&at_end)?)?)?;
            sum.iter_mut().zip(effects).for_each(|(sum, effect)| *sum += effect);
        }
        whole += sum.iter().map(|effect| effect.abs()).sum::<f64>() / backs.len() as f64;
    }
    Ok(whole)
}
