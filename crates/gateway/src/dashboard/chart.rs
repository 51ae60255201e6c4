//! Two shapes of charts, as SVG: stacked bars and lines.
//!
//! Drawn here rather than by a crate: a plotting crate writes fixed colours and text that shrinks with the picture, while
//! these take their colours from the style sheet (light and dark), leave text to HTML, and need no inline style, which the
//! content-security policy forbids. Every chart is followed by a table of the same numbers.

use maud::{Markup, html};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 240.0;

/// A series by name, a value for each place.
pub(crate) struct Series {
    pub(crate) name: String,
    /// Which colour.
    pub(crate) colour: usize,
    pub(crate) values: Vec<f64>,
}

/// What stands around a chart.
pub(crate) struct Around<'a> {
    pub(crate) title: &'a str,
    /// What the chart shows, in a sentence: for those who do not see it.
    pub(crate) says: String,
    /// Names of the first and the last place.
    pub(crate) ends: (String, String),
    /// How a value is written.
    pub(crate) write: fn(f64) -> String,
}

fn frame(around: &Around<'_>, (low, high): (f64, f64), series: &[Series], shapes: Markup) -> Markup {
    let zero = y(0.0, low, high);
    html! {
        figure.chart {
            figcaption { (around.title) }
            div.plot {
                span.high aria-hidden="true" { ((around.write)(high)) }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(around.says) {
                    (shapes)
                    line.axis x1="0" x2=(WIDTH) y1=(zero) y2=(zero) {}
                }
                @if low < 0.0 { span.low aria-hidden="true" { ((around.write)(low)) } }
            }
            div.ends aria-hidden="true" { span { (around.ends.0) } span { (around.ends.1) } }
            ul.legend {
                @for one in series { li { (swatch(one.colour)) (one.name) } }
            }
        }
    }
}

/// A dot of a colour.
pub(crate) fn swatch(colour: usize) -> Markup {
    html! { svg.swatch viewBox="0 0 10 10" aria-hidden="true" { rect class={ "c" (colour) } width="10" height="10" rx="2" {} } }
}

fn y(value: f64, low: f64, high: f64) -> String {
    let part = if high > low { (value - low) / (high - low) } else { 0.0 };
    format!("{:.1}", HEIGHT * (1.0 - part))
}

/// Bars of parts that add up; `names` of the bars are told when one points at them.
pub(crate) fn stacked(around: &Around<'_>, names: &[String], series: &[Series]) -> Markup {
    let total = |place: usize| series.iter().filter_map(|one| one.values.get(place)).sum::<f64>();
    let high = (0..names.len()).map(total).fold(0.0, f64::max);
    let width = WIDTH / names.len().max(1) as f64;
    let gap = (width * 0.1).min(4.0);
    let mut shapes = Vec::new();
    for (place, name) in names.iter().enumerate() {
        let mut below = 0.0;
        for one in series {
            let value = one.values.get(place).copied().unwrap_or(0.0);
            if value > 0.0 {
                let (x, height) = (place as f64 * width + gap / 2.0, HEIGHT * value / high);
                shapes.push(html! {
                    rect class={ "c" (one.colour) } x=(format!("{x:.2}")) width=(format!("{:.2}", width - gap))
                        y=(y(below + value, 0.0, high)) height=(format!("{height:.2}")) {
                        title { (name) ": " (one.name) " " ((around.write)(value)) }
                    }
                });
                below += value;
            }
        }
    }
    let shapes = html! { @for shape in &shapes { (shape) } };
    frame(around, (0.0, high), series, shapes)
}

/// A line for each series, over the same places.
pub(crate) fn lines(around: &Around<'_>, series: &[Series]) -> Markup {
    let all = || series.iter().flat_map(|one| one.values.iter().copied());
    let (low, high) = (all().fold(0.0, f64::min), all().fold(0.0, f64::max));
    let path = |one: &Series| {
        let last = one.values.len().saturating_sub(1).max(1) as f64;
        let point =
            |(place, value): (usize, &f64)| format!("{:.1},{}", WIDTH * place as f64 / last, y(*value, low, high));
        let mut points: Vec<String> = one.values.iter().enumerate().map(point).collect();
        if let [only] = one.values[..] {
            points.push(format!("{WIDTH:.1},{}", y(only, low, high)));
        }
        points.join(" ")
    };
    let shapes = html! {
        @for one in series { polyline class={ "line l" (one.colour) } points=(path(one)) { title { (one.name) } } }
    };
    frame(around, (low, high), series, shapes)
}

/// Parts of a bar: name, colour, size.
pub(crate) type Parts<'a> = Vec<(&'a str, usize, u64)>;

/// One bar of parts against another of parts, in the same scale: name, parts (name, colour, size).
pub(crate) fn compared(title: &str, bars: &[(&str, Parts<'_>)], write: fn(u64) -> String) -> Markup {
    let total = |parts: &[(&str, usize, u64)]| parts.iter().map(|(_, _, size)| *size).sum::<u64>();
    let most = bars.iter().map(|(_, parts)| total(parts)).max().unwrap_or(0).max(1) as f64;
    let rects = |parts: &[(&str, usize, u64)]| {
        let (mut x, mut rects) = (0.0, Vec::new());
        for (part, colour, size) in parts {
            let width = 1000.0 * *size as f64 / most;
            rects.push(html! {
                rect class={ "c" (colour) } x=(format!("{x:.2}")) y="0" height="20" width=(format!("{width:.2}")) {
                    title { (part) " " (write(*size)) }
                }
            });
            x += width;
        }
        html! { @for rect in &rects { (rect) } }
    };
    html! {
        figure.chart {
            figcaption { (title) }
            @for (name, parts) in bars {
                p.bar-name { (name) ": " strong { (write(total(parts))) } }
                svg.bar viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label={ (name) ": " (write(total(parts))) } {
                    (rects(parts))
                }
                ul.legend { @for (part, colour, size) in parts { li { (swatch(*colour)) (part) " " (write(*size)) } } }
            }
        }
    }
}
