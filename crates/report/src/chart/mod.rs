//! The kinds of pictures.
//!
//! Each is an SVG as wide as there is room. Places across are percents of the width, heights are pixels: letters and lines keep
//! their size however narrow the page gets. What has to bend with the width (lines, areas) is in an inner SVG that is
//! stretched, with strokes that are not.

pub(crate) mod area;
pub(crate) mod bars;
pub(crate) mod curves;
pub(crate) mod scatter;
pub(crate) mod timeline;

use crate::number::{Scale, mark};

/// A share of the width, for an attribute.
fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// A place in a stretched inner SVG, which is 1000 wide and high.
fn inner(share: f64) -> String {
    format!("{:.1}", 1000.0 * share)
}

/// A mark of an axis.
struct Mark {
    place: String,
    text: String,
}

/// Marks along the width.
fn across(scale: Scale, base: f64, most: usize, text: impl Fn(f64) -> String) -> Vec<Mark> {
    let values = scale.marks(base, most).into_iter();
    values
        .map(|value| Mark {
            place: percent(scale.place(value)),
            text: text(value),
        })
        .collect()
}

/// Marks up the height: places count from the top.
fn upward(scale: Scale, base: f64, most: usize, text: impl Fn(f64) -> String) -> Vec<Mark> {
    let values = scale.marks(base, most).into_iter();
    values
        .map(|value| Mark {
            place: percent(1.0 - scale.place(value)),
            text: text(value),
        })
        .collect()
}

/// Moves places apart so that none is nearer than `apart` to the next; they stay within 0 and 1 if there is room.
fn spread(places: &[f64], apart: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    let mut spread = places.to_vec();
    for pair in 1..order.len() {
        let least = spread[order[pair - 1]] + apart;
        spread[order[pair]] = spread[order[pair]].max(least);
    }
    // What was pushed beyond the end goes back, and pushes those before it.
    let mut most = 1.0;
    for &place in order.iter().rev() {
        spread[place] = spread[place].min(most);
        most = spread[place] - apart;
    }
    spread
}

/// A label in lines of at most `most` characters, broken between words.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A size in bytes as a mark: `4 B`, `64 KiB`.
fn size_mark(bytes: f64) -> String {
    let (unit, name) = match bytes {
        _ if bytes >= 1_073_741_824.0 => (1_073_741_824.0, "GiB"),
        _ if bytes >= 1_048_576.0 => (1_048_576.0, "MiB"),
        _ if bytes >= 1024.0 => (1024.0, "KiB"),
        _ => (1.0, "B"),
    };
    format!("{} {name}", mark(bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_would_lie_on_each_other_are_moved_apart() {
        let spread = spread(&[0.5, 0.51, 0.99, 1.0], 0.1);
        let mut sorted = spread.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(
            sorted.windows(2).all(|pair| pair[1] - pair[0] > 0.099),
            "{spread:?}"
        );
        assert!(sorted.iter().all(|place| (0.0..=1.0).contains(place)));
        assert!(spread[0] < spread[1] && spread[2] < spread[3]);
    }

    #[test]
    fn long_labels_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable_word x", 5), ["unbreakable_word", "x"]);
    }

    #[test]
    fn sizes_are_marked_in_the_largest_unit() {
        assert_eq!(size_mark(4.0), "4 B");
        assert_eq!(size_mark(65536.0), "64 KiB");
        assert_eq!(size_mark(4_294_967_296.0), "4 GiB");
    }
}
