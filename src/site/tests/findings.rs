//! What pages say first: the picture of a circuit, findings, strips, verdicts of links.

use super::*;
use crate::stats::agreement::Doubt;

fn feature_page(files: &BTreeMap<String, String>, id: FeatureId) -> &str {
    &files[&format!("features/{id}.html")]
}

#[test]
fn a_task_begins_with_its_circuit_and_every_node_leads_somewhere() {
    let files = built(&fixture::atlas());
    for (page, least) in [("tasks/ioi.html", 20), ("index.html", 4)] {
        let page = &files[page];
        let picture = page.split("<svg class=\"graph circuit").nth(1).expect("a picture");
        let picture = picture.split("</svg>").next().unwrap();
        let nodes = picture.matches("<a class=\"node ").count();
        assert!(nodes >= least, "{nodes} nodes");
        assert_eq!(nodes, picture.matches(" href=\"").count());
        let numbers =
            |n: &str| n.split(' ').filter_map(|n| n.parse::<usize>().ok()).collect::<Vec<_>>();
        let ends: Vec<Vec<usize>> = values(picture, "data-n").into_iter().map(numbers).collect();
        assert!(ends.iter().any(|n| n.len() == 2));
        assert!(ends.iter().flatten().all(|n| *n < nodes), "links end at nodes");
        assert!(picture.contains(">last token</text>") && !picture.contains("right <"));
    }
    for text in ["<path class=\"pos\"", "<path class=\"neg\"", "right &lt;name&gt;"] {
        assert!(files["tasks/ioi.html"].contains(text), "{text}");
    }
    let task = &files["tasks/ioi.html"];
    let before_prompts = task.split("id=\"prompts\"").next().unwrap();
    assert!(
        before_prompts.contains("id=\"picture\"") && before_prompts.contains("class=\"findings\"")
    );
    assert!(task.contains("Left out: ") && task.contains("of all effects on it"));
}

#[test]
fn without_names_of_positions_there_is_no_picture_and_no_gap() {
    let mut atlas = fixture::atlas();
    atlas.tasks.iter_mut().flat_map(|t| &mut t.prompts).for_each(|p| p.places.clear());
    let files = built(&atlas);
    assert!(!files["tasks/ioi.html"].contains("id=\"picture\""));
    assert!(files["tasks/ioi.html"].contains("class=\"findings\""));
}

#[test]
fn the_front_page_names_the_model_and_says_what_was_found() {
    let page = &built(&fixture::atlas())["index.html"];
    for text in [
        "demo&#x2f;&lt;model&gt;</b> (4 layers of 6 heads, 96 wide)",
        "4 attention SAEs of 768 features and 4 MLP transcoders of 768 features",
        "demo&#x2f;corpus.jsonl",
        "<dt>Heads and MLPs <span class=\"stamp",
        "<dt>Features alone <span class=\"stamp",
        "<dt>Not tested</dt>",
        "Measured on ",
    ] {
        assert!(page.contains(text), "no {text:?}");
    }
}

#[test]
fn a_feature_begins_with_its_tasks_positions_and_graphs() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let id = atlas.features[3].id;
    let page = feature_page(&files, id);
    let strip = page.split("<dl class=\"strip\">").nth(1).unwrap().split("</dl>").next().unwrap();
    assert!(page.find("class=\"strip\"").unwrap() < page.find("class=\"say").unwrap());
    let with = atlas.tasks[0].prompts.iter().filter(|p| p.graph.is_some()).count();
    assert!(strip.contains("tasks/ioi.html") && strip.contains("graphs/ioi-"), "{strip}");
    // Eight are linked at once.
    let more = with - 8;
    assert!(strip.contains(&format!("in {with} of ")) && strip.contains(&format!(">{more} more<")));
    assert_eq!(strip.matches("graphs/ioi-").count(), with, "each graph once");
    assert!(strip.contains("position: "), "{strip}");
    let component = &files[&format!("components/{}.html", atlas.components[0].component)];
    assert!(component.contains("class=\"strip\""));
    let pair = &files[&pages(&files)
        .find(|p| p.0.starts_with("pairs/") && !p.0.contains("index"))
        .unwrap()
        .0
        .clone()];
    assert!(pair.contains("Graphs that both features are in.") && pair.contains("graphs/ioi-"));
    let mut alone = atlas.clone();
    alone.tasks.iter_mut().flat_map(|t| &mut t.prompts).for_each(|p| p.graph = None);
    alone.features[3].servings.clear();
    assert!(feature_page(&built(&alone), id).contains("<dd>in no circuit</dd>"));
}

#[test]
fn tasks_that_hardly_use_a_component_are_folded() {
    let mut atlas = fixture::atlas();
    let heads = |c: &ComponentPage| c.heads.len() > 1 || c.component.head().is_some();
    let at = atlas.components.iter().position(heads).unwrap();
    let page = &mut atlas.components[at];
    page.tasks = vec![("ioi".into(), 0.01), ("greater-than".into(), 0.37)];
    let head = page.heads.first().cloned().unwrap_or_default();
    page.heads =
        ["ioi", "greater-than"].map(|task| Head { task: task.into(), ..head.clone() }).into();
    let name = page.component;
    let text = &built(&atlas)[&format!("components/{name}.html")];
    let does = text.split("id=\"does\"").nth(1).unwrap().split("</section>").next().unwrap();
    let [first, folded, rare] = ["tasks/greater-than.html", "<details", "tasks/ioi.html"]
        .map(|text| does.find(text).unwrap_or_else(|| panic!("no {text}: {does}")));
    assert!(first < folded && folded < rare);
    assert!(does.contains("1 task with it in under 5% of circuits"));
}

#[test]
fn a_link_of_the_opposite_sign_does_not_fall_short() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let task = &files["tasks/ioi.html"];
    assert!(task.contains("19 of 20 links tested. As predicted: 17; fall short"), "{task}");
    let of = |doubt: Doubt| atlas.tasks[0].links.iter().find(|l| l.doubt == Some(doubt)).unwrap();
    let only = |page: &str, yes: &str, no: &str| {
        assert!(page.contains(yes), "no {yes}");
        let warning = page.split("class=\"warning\"").nth(1).unwrap().split("</p>").next().unwrap();
        assert!(!warning.contains(no), "{warning}");
    };
    let opposite = feature_page(&files, of(Doubt::Opposite).feature);
    only(opposite, "the attribution has the direction wrong", "larger than the effect");
    assert!(opposite.contains(">opposite sign</b>"));
    let short = feature_page(&files, of(Doubt::Short).feature);
    only(short, "the attribution is larger than the effect", "direction wrong");
}

#[test]
fn a_contrast_below_nothing_has_a_colour_of_its_own() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let map = files["tasks/ioi.html"].split("class=\"diverging\"").nth(1).unwrap();
    let map = map.split("</svg>").next().unwrap();
    let contrasts = || atlas.tasks[0].components.iter().filter_map(|c| c.contrast);
    let below = contrasts().filter(|c| *c < 0.0).count();
    assert!(below > 0 && map.matches("<rect class=\"below\"").count() == below);
    let largest = contrasts().map(f64::abs).fold(0.0, f64::max) * 100.0;
    assert!(
        map.contains(&format!("−{largest:.0}</span>")) && map.contains("fill-opacity=\"0.60\"")
    );
    assert!(!map.contains("class=\"below\" x=\"0\""));
}

#[test]
fn logits_are_at_the_feature_s_own_maximum() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let f = &atlas.features[3];
    let page = feature_page(&files, f.id);
    let max = crate::format::number::significant(f.max, 3);
    assert!(page.contains(&format!(">at max. {max}<")));
    let first = crate::format::number::fixed(f.promoted[0].logit * f.max, 1);
    assert!(page.contains(&format!("<td>{first}<")), "{first}");
    let component = &files[&format!("components/{}.html", atlas.components[0].component)];
    assert!(!component.contains(">at max."), "a sum of features has no maximum");
}

#[test]
fn a_column_of_q_values_that_are_all_tiny_is_one_sentence() {
    let mut atlas = fixture::atlas();
    let id = atlas.features[3].id;
    assert!(feature_page(&built(&atlas), id).contains(">q<"));
    atlas.features[3].corpus_pairs.iter_mut().for_each(|p| p.q = 0.0);
    let files = built(&atlas);
    let page = feature_page(&files, id);
    assert!(!page.contains(">q<") && page.contains("over all pairs tested) are below 1e−300."));
}

#[test]
fn a_block_says_which_half_of_the_corpus_it_is_of() {
    let atlas = fixture::atlas();
    let files = built(&atlas);
    let page = feature_page(&files, atlas.features[3].id);
    for text in [
        "<h2>Activation <span class=\"quiet\">on both halves of the corpus</span></h2>",
        "<h2>Co-occurring features in the corpus <span class=\"quiet\">both halves</span></h2>",
        "from the <i>explain</i> half",
    ] {
        assert!(page.contains(text), "no {text:?}");
    }
}
