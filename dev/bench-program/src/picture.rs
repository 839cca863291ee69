//! An SVG line chart over two logarithmic axes: the cost of one object by the number of objects.

use std::fmt::Write as _;

use crate::format::grouped;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

pub(crate) struct Line {
    pub name: &'static str,
    pub color: &'static str,
    /// Number of objects, and milliseconds for each object.
    pub points: Vec<(f64, f64)>,
}

/// A logarithmic axis from one power of ten to another.
struct Axis {
    from: i32,
    to: i32,
    /// Coordinates of its two ends in the picture.
    ends: (f64, f64),
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, ends: (f64, f64)) -> Self {
        let (mut from, mut to) = (i32::MAX, i32::MIN);
        for value in values {
            let power = value.max(1e-6).log10();
            #[expect(clippy::cast_possible_truncation, reason = "a power of ten")]
            let (below, above) = (power.floor() as i32, power.ceil() as i32);
            (from, to) = (from.min(below), to.max(above));
        }
        let from = from.min(to);
        Self { from, to: to.max(from + 1), ends }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(1e-6).log10() - f64::from(self.from)) / f64::from(self.to - self.from);
        self.ends.0 + share * (self.ends.1 - self.ends.0)
    }

    fn powers(&self) -> impl Iterator<Item = f64> {
        (self.from..=self.to).map(|power| 10_f64.powi(power))
    }
}

/// Draws the lines; `None` if there are no points.
pub(crate) fn svg(title: &str, lines: &[Line]) -> Option<String> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    points().next()?;
    let across = Axis::over(points().map(|(objects, _)| objects), (LEFT, WIDTH - RIGHT));
    let up = Axis::over(points().map(|(_, cost)| cost), (HEIGHT - BOTTOM, TOP));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, WIDTH / 2.0, TOP / 2.0, "middle", title);
    grid(&mut svg, &across, &up);
    for line in lines {
        draw(&mut svg, line, &across, &up);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn grid(svg: &mut String, across: &Axis, up: &Axis) {
    let (left, right) = across.ends;
    let (bottom, top) = up.ends;
    for objects in across.powers() {
        let x = across.place(objects);
        rule(svg, (x, bottom), (x, top));
        text(svg, x, bottom + 20.0, "middle", &number(objects));
    }
    for cost in up.powers() {
        let y = up.place(cost);
        rule(svg, (left, y), (right, y));
        text(svg, left - 8.0, y + 4.0, "end", &format!("{} ms", number(cost)));
    }
    text(svg, f64::midpoint(left, right), bottom + 40.0, "middle", "objects");
}

fn draw(svg: &mut String, line: &Line, across: &Axis, up: &Axis) {
    let Line { name, color, points } = line;
    let places: Vec<(f64, f64)> =
        points.iter().map(|&(objects, cost)| (across.place(objects), up.place(cost))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let path = path.join(" ");
    // Writing to a string never fails.
    let _ =
        writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>");
    for (x, y) in &places {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\"/>");
    }
    if let Some((x, y)) = places.last() {
        text(svg, x + 10.0, y + 4.0, "start", name);
    }
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ =
        writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>");
}

/// Writes a text, which must not contain characters that XML escapes.
fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// Formats a power of ten: `0.01`, `1`, `10,000`.
fn number(value: f64) -> String {
    if value < 1.0 {
        return value.to_string();
    }
    format!("{value:.0}").parse::<u64>().map_or_else(|_| value.to_string(), grouped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        Line { name: "keyturn", color: "#c00", points: points.to_vec() }
    }

    #[test]
    fn powers_of_ten_are_equally_far_apart() {
        let axis = Axis::over([100.0, 9000.0].into_iter(), (0.0, 200.0));
        assert_eq!((axis.from, axis.to), (2, 4));
        let places: Vec<f64> = axis.powers().map(|value| axis.place(value)).collect();
        assert!(places.iter().zip([0.0, 100.0, 200.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{places:?}");
    }

    #[test]
    fn a_picture_has_every_point_and_labels() {
        let svg = svg("title", &[line(&[(100.0, 0.5), (10_000.0, 5.0)])]).unwrap();
        assert_eq!(svg.matches("<circle").count(), 2);
        for label in [">100<", ">10,000<", ">0.1 ms<", ">10 ms<", ">keyturn<", ">title<"] {
            assert!(svg.contains(label), "{label} in {svg}");
        }
    }

    #[test]
    fn one_point_has_axes_and_none_has_no_picture() {
        assert!(svg("", &[line(&[(100.0, 1.0)])]).is_some());
        assert!(svg("", &[line(&[])]).is_none());
    }
}
