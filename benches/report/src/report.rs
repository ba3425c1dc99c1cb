//! The results: one comparison a row, as a table or as JSON.

use std::io::{self, Write as _};

use serde_json::{Value, json};

use crate::samples::Samples;
use crate::system;

/// What the numbers of a row are.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Seconds.
    Time,
    /// Bytes.
    Size,
    /// So many a second.
    Rate,
    /// Bytes a second.
    Throughput,
    /// Things.
    Count,
}

/// What a row is to reach. Ratios are ours over the other's.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// The ratio is to be this or less.
    RatioAtMost(f64),
    /// The ratio is to be this or more.
    RatioAtLeast(f64),
    /// Our figure is to be this or less, in the row's unit.
    AtMost(f64),
    /// Our figure is to be this or more, in the row's unit.
    AtLeast(f64),
}

/// One row: a figure of ours, and what it is held against.
#[derive(Clone, Debug)]
#[must_use = "a row is told once it is added to a report"]
pub struct Row {
    what: String,
    unit: Unit,
    ours: Samples,
    other: Option<(String, Samples)>,
    target: Option<Target>,
    quoted: &'static str,
}

/// All rows, notes and skipped rows.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Row {
    /// A figure of ours, with nothing beside it yet.
    pub fn new(what: impl Into<String>, unit: Unit, ours: &Samples) -> Self {
        Self { what: what.into(), unit, ours: ours.clone(), other: None, target: None, quoted: "" }
    }

    /// Adds what it is compared with. No samples mean that it could not be measured.
    pub fn against(mut self, name: impl Into<String>, samples: &Samples) -> Self {
        self.other = Some((name.into(), samples.clone()));
        self
    }

    /// Adds what the row is to reach.
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Adds what the issue says of the library that `BioXen` replaces. It is not measured here.
    pub fn quoted(mut self, figure: &'static str) -> Self {
        self.quoted = figure;
        self
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.ours.median()? / self.other.as_ref()?.1.median()?)
    }

    fn met(&self) -> Option<bool> {
        let (ours, ratio) = (self.ours.median()?, self.ratio());
        match self.target? {
            Target::RatioAtMost(bound) => ratio.map(|ratio| ratio <= bound),
            Target::RatioAtLeast(bound) => ratio.map(|ratio| ratio >= bound),
            Target::AtMost(bound) => Some(ours <= bound),
            Target::AtLeast(bound) => Some(ours >= bound),
        }
    }

    fn shown_target(&self) -> String {
        match self.target {
            None => String::new(),
            Some(Target::RatioAtMost(bound)) => format!("≤ {}", shown_ratio(bound)),
            Some(Target::RatioAtLeast(bound)) => format!("≥ {}", shown_ratio(bound)),
            Some(Target::AtMost(bound)) => format!("≤ {}", self.unit.shown(bound)),
            Some(Target::AtLeast(bound)) => format!("≥ {}", self.unit.shown(bound)),
        }
    }

    fn cells(&self) -> [String; 8] {
        let shown = |samples: &Samples| match (samples.median(), samples.p95()) {
            (Some(median), Some(p95)) if samples.len() > 1 => {
                format!("{} ({})", self.unit.shown(median), self.unit.shown(p95))
            }
            (Some(only), _) => self.unit.shown(only),
            _ => "not measured".into(),
        };
        let (other, others) = match &self.other {
            Some((name, samples)) => (name.clone(), shown(samples)),
            None => Default::default(),
        };
        let met = self.met().map_or("", |met| if met { "yes" } else { "NO" });
        [
            self.what.clone(),
            shown(&self.ours),
            other,
            others,
            self.ratio().map_or_else(String::new, shown_ratio),
            self.shown_target(),
            met.into(),
            self.quoted.into(),
        ]
    }

    fn json(&self) -> Value {
        let summary = |samples: &Samples| json!({"median": samples.median(), "p95": samples.p95(), "samples": samples.len()});
        json!({
            "what": self.what,
            "unit": self.unit.name(),
            "ours": summary(&self.ours),
            "other": self.other.as_ref().map(|(name, _)| name),
            "others": self.other.as_ref().map(|(_, samples)| summary(samples)),
            "ratio": self.ratio(),
            "target": self.target.map(|_| self.shown_target()),
            "met": self.met(),
            "replaced library (quoted)": Some(self.quoted).filter(|figure| !figure.is_empty()),
        })
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Time => "seconds",
            Self::Size => "bytes",
            Self::Rate => "per second",
            Self::Throughput => "bytes per second",
            Self::Count => "count",
        }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Self::Time if value < 1e-3 => format!("{:.1} µs", value * 1e6),
            Self::Time if value < 1.0 => format!("{:.2} ms", value * 1e3),
            Self::Time => format!("{value:.2} s"),
            Self::Size if value < 1e6 => format!("{:.0} KiB", value / 1024.0),
            Self::Size => format!("{:.1} MiB", value / 1024.0 / 1024.0),
            Self::Throughput => format!("{:.0} MB/s", value / 1e6),
            Self::Rate if value >= 1e6 => format!("{:.1} M/s", value / 1e6),
            Self::Rate => format!("{value:.0} /s"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

fn shown_ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio <= 0.0 => "0".into(),
        ratio if ratio < 0.1 => format!("1/{:.0}", 1.0 / ratio),
        ratio if ratio < 10.0 => format!("{ratio:.2} ×"),
        ratio => format!("{ratio:.0} ×"),
    }
}

impl Report {
    /// A report of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row at the end.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Says something about the rows, such as why one is missing.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints the rows as a table that is also Markdown.
    pub fn print_table(&self) -> io::Result<()> {
        const HEADINGS: [&str; 8] = [
            "what",
            "ours (p95)",
            "other",
            "its figure (p95)",
            "ratio",
            "target",
            "met",
            "replaced library (quoted)",
        ];
        let rows: Vec<[String; 8]> = [HEADINGS.map(str::to_owned)]
            .into_iter()
            .chain(self.rows.iter().map(Row::cells))
            .collect();
        let widths: [usize; 8] = std::array::from_fn(|column| {
            rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        });
        // The last column is only for those who have something in it.
        let quotes = self.rows.iter().any(|row| !row.quoted.is_empty());
        let shown = if quotes { widths.len() } else { widths.len() - 1 };
        let widths = &widths[..shown];
        let mut out = io::stdout().lock();
        for (index, row) in rows.iter().enumerate() {
            for (cell, &width) in row.iter().zip(widths) {
                write!(out, "| {cell:<width$} ")?;
            }
            writeln!(out, "|")?;
            if index == 0 {
                widths.iter().try_for_each(|width| write!(out, "|-{:-<width$}-", ""))?;
                writeln!(out, "|")?;
            }
        }
        writeln!(out, "\nMedians, with what 95 of 100 samples do not exceed in parentheses.")?;
        writeln!(out, "The ratio is ours over the other's. {}.", system::situation())?;
        self.notes.iter().try_for_each(|note| writeln!(out, "- {note}"))
    }

    /// Prints everything as one JSON object.
    pub fn print_json(&self) -> io::Result<()> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let object = json!({"situation": system::situation(), "rows": rows, "notes": self.notes});
        writeln!(io::stdout().lock(), "{object:#}")
    }
}
