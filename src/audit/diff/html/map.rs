//! The *layer map*: the layers of both sides as boxes, the base at the bottom, those that stand for each other connected.
//!
//! Invariant: heights ascend with sizes; the drawing is a function of the report.

use std::fmt::Write as _;

use super::super::super::human_size;
use super::super::{Class, DiffReport, Difference, LayerChange, LayerPlace, Side};
use super::escaped;

const WIDTH: u64 = 1000;
const BOX: u64 = 400;
const GAP: u64 = 4;
const LEAST: u64 = 22;
const MOST: u64 = 110;
/// Most layers of a side that are drawn one by one.
const LAYERS_MAX: usize = 200;

/// Top and height of each box of a side.
type Boxes = Vec<(u64, u64)>;

pub(super) fn draw(report: &DiffReport, page: &mut String) {
    let largest = [&report.a, &report.b]
        .iter()
        .flat_map(|side| side.layers.iter().map(|layer| layer.size))
        .max()
        .unwrap_or(1)
        .max(1);
    let total = |side: &Side| -> u64 {
        side.layers
            .iter()
            .take(LAYERS_MAX)
            .map(|layer| height(layer.size, largest) + GAP)
            .sum()
    };
    let tall = total(&report.a).max(total(&report.b)) + GAP;
    let (left, right) = (boxes(&report.a, largest, tall), boxes(&report.b, largest, tall));
    let _ = writeln!(
        page,
        "<svg class=\"map\" viewBox=\"-2 -2 {} {}\" role=\"img\" aria-label=\"layers of both images\">",
        WIDTH + 4,
        tall + 4
    );
    for place in &report.layers {
        if let (Some(a), Some(b)) = (place.a, place.b)
            && let (Some(p), Some(q)) = (left.get(a), right.get(b))
        {
            band(*p, *q, class_of(report, *place), page);
        }
    }
    for (name, side, boxes, x) in [("a", &report.a, &left, 0), ("b", &report.b, &right, WIDTH - BOX)] {
        for (index, ((layer, place), top)) in side.layers.iter().zip(places(report, name)).zip(boxes).enumerate() {
            let class = place.map_or("same", |place| class_of(report, place));
            let label = format!("{index}  {}  {}", human_size(layer.size), layer.holds);
            let label: String = label.chars().take(62).collect();
            let _ = writeln!(
                page,
                "<g class=\"layer {class}\"><title>{}\n{}</title><rect x=\"{x}\" y=\"{}\" width=\"{BOX}\" height=\"{}\" rx=\"4\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text></g>",
                layer.digest,
                escaped(&layer.holds),
                top.0,
                top.1,
                x + 10,
                top.0 + top.1 / 2 + 4,
                escaped(&label)
            );
        }
    }
    page.push_str("</svg>\n<p class=\"legend\">");
    for (class, text) in [
        ("same", "equal"),
        ("packed", "same tar, other bytes"),
        ("changed", "changed"),
        ("moved", "moved"),
        ("removed", "only in the first"),
        ("added", "only in the second"),
    ] {
        let _ = write!(page, "<span class=\"key {class}\"></span>{text} ");
    }
    page.push_str("</p>\n");
}

/// The height of a layer: the square root, so that small layers can be seen beside large ones.
fn height(size: u64, largest: u64) -> u64 {
    let thousandths = (size as u128 * 1_000_000 / u128::from(largest)) as u64;
    LEAST + (MOST - LEAST) * thousandths.isqrt() / 1000
}

fn boxes(side: &Side, largest: u64, tall: u64) -> Boxes {
    let mut bottom = tall - GAP;
    side.layers
        .iter()
        .take(LAYERS_MAX)
        .map(|layer| {
            let high = height(layer.size, largest);
            let top = bottom - high;
            bottom = top - GAP.min(top);
            (top, high)
        })
        .collect()
}

/// For each layer of a side what became of it.
fn places(report: &DiffReport, side: &str) -> Vec<Option<LayerPlace>> {
    let count = if side == "a" {
        report.a.layers.len()
    } else {
        report.b.layers.len()
    };
    let own = |place: &LayerPlace| if side == "a" { place.a } else { place.b };
    (0..count)
        .map(|index| report.layers.iter().copied().find(|place| own(place) == Some(index)))
        .collect()
}

fn class_of(report: &DiffReport, place: LayerPlace) -> &'static str {
    let (a, b) = match (place.a, place.b) {
        (Some(a), Some(b)) => (a, b),
        (Some(_), None) => return "removed",
        _ => return "added",
    };
    let found = report.differences.iter().find_map(|difference| match difference {
        Difference::Layer(layer) => match layer.change {
            LayerChange::Changed { a: x, b: y, .. } if (x, y) == (a, b) => Some("changed"),
            LayerChange::Moved { a: x, b: y, .. } if (x, y) == (a, b) => Some("moved"),
            LayerChange::Compression { a: x, b: y, .. } if (x, y) == (a, b) => {
                (layer.class != Some(Class::Layering)).then_some("packed")
            }
            _ => None,
        },
        _ => None,
    });
    found.unwrap_or("same")
}

/// A band from a box on the left to one on the right.
fn band((top_a, high_a): (u64, u64), (top_b, high_b): (u64, u64), class: &str, page: &mut String) {
    let (x, y) = (BOX, WIDTH - BOX);
    let (p, q) = (x + (y - x) / 2, y - (y - x) / 2);
    let (end_a, end_b) = (top_a + high_a, top_b + high_b);
    let _ = writeln!(
        page,
        "<path class=\"band {class}\" d=\"M{x} {top_a} C{p} {top_a} {q} {top_b} {y} {top_b} L{y} {end_b} C{q} {end_b} {p} {end_a} {x} {end_a} Z\"/>"
    );
}
