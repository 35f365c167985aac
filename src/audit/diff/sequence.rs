//! An *alignment* pairs the equal elements of two sequences in order: of layers by diffID, of text by line.
//!
//! Invariant: time and memory are bounded; beyond the bound only the common ends are paired, which is a correct
//! alignment, though not the longest.

/// Most cells of the table: 16 MiB of `u32`.
const CELLS_MAX: usize = 4 << 20;

/// The pairs `(index in a, index in b)` of a longest common subsequence, ascending.
pub(super) fn align<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    let head = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&a[head..], &b[head..]);
    let tail = rest_a
        .iter()
        .rev()
        .zip(rest_b.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (middle_a, middle_b) = (&rest_a[..rest_a.len() - tail], &rest_b[..rest_b.len() - tail]);
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|index| (index, index)).collect();
    pairs.extend(
        middle(middle_a, middle_b)
            .into_iter()
            .map(|(x, y)| (x + head, y + head)),
    );
    pairs.extend((0..tail).rev().map(|back| (a.len() - 1 - back, b.len() - 1 - back)));
    pairs
}

fn middle<T: PartialEq>(a: &[T], b: &[T]) -> Vec<(usize, usize)> {
    let width = b.len() + 1;
    if a.is_empty() || b.is_empty() || (a.len() + 1).saturating_mul(width) > CELLS_MAX {
        return Vec::new();
    }
    // best[x][y]: length of the longest common subsequence of a[x..] and b[y..].
    let mut best = vec![0u32; (a.len() + 1) * width];
    for x in (0..a.len()).rev() {
        for y in (0..b.len()).rev() {
            best[x * width + y] = if a[x] == b[y] {
                best[(x + 1) * width + y + 1] + 1
            } else {
                best[(x + 1) * width + y].max(best[x * width + y + 1])
            };
        }
    }
    let (mut x, mut y) = (0, 0);
    let mut pairs = Vec::new();
    while x < a.len() && y < b.len() {
        if a[x] == b[y] {
            pairs.push((x, y));
            (x, y) = (x + 1, y + 1);
        } else if best[(x + 1) * width + y] >= best[x * width + y + 1] {
            x += 1;
        } else {
            y += 1;
        }
    }
    pairs
}

/// A unified diff of two texts with three lines of context, of at most `lines_max` lines and no line over 200
/// characters.
pub(super) fn unified(a: &str, b: &str, lines_max: usize) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split_inclusive('\n').collect(), b.split_inclusive('\n').collect());
    let mut out: Vec<String> = Vec::new();
    for hunk in hunks(&script(&a, &b)) {
        let (first_a, first_b) = (hunk[0].a, hunk[0].b);
        let count = |kinds: [Side; 2]| hunk.iter().filter(|edit| kinds.contains(&edit.side)).count();
        let (in_a, in_b) = (count([Side::Both, Side::A]), count([Side::Both, Side::B]));
        // A range of no lines is named by the line before it (POSIX diff, "Diff -u").
        let at = |first: usize, count: usize| if count == 0 { first } else { first + 1 };
        out.push(format!(
            "@@ -{},{in_a} +{},{in_b} @@",
            at(first_a, in_a),
            at(first_b, in_b)
        ));
        for edit in hunk {
            let (sign, text) = match edit.side {
                Side::Both => (' ', a[edit.a]),
                Side::A => ('-', a[edit.a]),
                Side::B => ('+', b[edit.b]),
            };
            out.push(format!("{sign}{}", clipped(text)));
            if !text.ends_with('\n') {
                out.push("\\ no newline at end of file".to_owned());
            }
        }
    }
    let more = out.len().saturating_sub(lines_max);
    out.truncate(lines_max);
    if more > 0 {
        out.push(format!("… {more} more lines"));
    }
    out.join("\n")
}

fn clipped(line: &str) -> String {
    const WIDTH: usize = 200;
    let line = line.strip_suffix('\n').unwrap_or(line);
    let mut shown: String = line
        .chars()
        .take(WIDTH)
        .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
        .collect();
    if line.chars().nth(WIDTH).is_some() {
        shown.push('…');
    }
    shown
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Both,
    A,
    B,
}

/// A line that is kept, removed or added, with the position reached in both texts.
#[derive(Debug, Clone, Copy)]
struct Edit {
    side: Side,
    a: usize,
    b: usize,
}

fn script(a: &[&str], b: &[&str]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let (mut x, mut y) = (0, 0);
    for (to_x, to_y) in align(a, b).into_iter().chain([(a.len(), b.len())]) {
        edits.extend((x..to_x).map(|x| Edit {
            side: Side::A,
            a: x,
            b: y,
        }));
        edits.extend((y..to_y).map(|y| Edit {
            side: Side::B,
            a: to_x,
            b: y,
        }));
        if to_x < a.len() && to_y < b.len() {
            edits.push(Edit {
                side: Side::Both,
                a: to_x,
                b: to_y,
            });
        }
        (x, y) = (to_x + 1, to_y + 1);
    }
    edits
}

/// Groups changes that have at most six kept lines between them.
fn hunks(edits: &[Edit]) -> Vec<&[Edit]> {
    const CONTEXT: usize = 3;
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (index, _) in edits.iter().enumerate().filter(|(_, edit)| edit.side != Side::Both) {
        let (from, to) = (index.saturating_sub(CONTEXT), (index + 1 + CONTEXT).min(edits.len()));
        match ranges.last_mut() {
            Some(last) if from <= last.1 => last.1 = to,
            _ => ranges.push((from, to)),
        }
    }
    ranges.into_iter().map(|(from, to)| &edits[from..to]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unified_diffs_read_as_diff_u_writes_them() {
        let a = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
        for (b, expected) in [
            (a, ""),
            (
                "1\n2\n3\n4\nX\n6\n7\n8\n9\n10\n",
                "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+X\n 6\n 7\n 8",
            ),
            ("0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", "@@ -1,3 +1,4 @@\n+0\n 1\n 2\n 3"),
            (
                "1\n2\n3\n4\n5\n6\n7\n8\n9\n10",
                "@@ -7,4 +7,4 @@\n 7\n 8\n 9\n-10\n+10\n\\ no newline at end of file",
            ),
        ] {
            assert_eq!(unified(a, b, 100), expected);
        }
        assert_eq!(unified("", "x\n", 100), "@@ -0,0 +1,1 @@\n+x");
        assert_eq!(unified("x\ny\n", "", 2), "@@ -1,2 +0,0 @@\n-x\n… 1 more lines");
    }

    proptest! {
        #[test]
        fn an_alignment_ascends_and_pairs_equals(a in "[abc]{0,12}", b in "[abc]{0,12}") {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            let pairs = align(a, b);
            prop_assert!(pairs.iter().all(|&(x, y)| a[x] == b[y]));
            prop_assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1));
            prop_assert_eq!(pairs.len(), align(b, a).len());
            if a == b {
                prop_assert_eq!(pairs.len(), a.len());
            }
        }

        #[test]
        fn the_script_rebuilds_both_texts(a in "[ab\n]{0,30}", b in "[ab\n]{0,30}") {
            let (x, y): (Vec<&str>, Vec<&str>) = (a.split_inclusive('\n').collect(), b.split_inclusive('\n').collect());
            let edits = script(&x, &y);
            let left: String = edits.iter().filter(|edit| edit.side != Side::B).map(|edit| x[edit.a]).collect();
            let right: String = edits.iter().filter(|edit| edit.side != Side::A).map(|edit| y[edit.b]).collect();
            prop_assert_eq!((left, right), (a, b));
        }
    }
}
