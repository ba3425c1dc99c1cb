//! Metrics since a time, as `rrd_updates` answers: a table with a column for each series.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Consolidation, InvalidMetrics, Kind, Series};
use crate::wire::{Token, Tokens, Wire, XmlError, mend_odd_floats};

/// Reads an answer of `rrd_updates`, which is JSON or, from old servers, XML. Numbers may stand as texts.
pub fn parse_updates(mut body: Vec<u8>) -> Result<Vec<Series>, InvalidMetrics> {
    let table = if body.trim_ascii_start().starts_with(b"<") {
        let text = std::str::from_utf8(&body).map_err(InvalidMetrics::new)?;
        xml(&mut Tokens::new(text)).map_err(InvalidMetrics::new)?
    } else {
        match serde_json::from_slice(&body) {
            Err(error) if error.is_syntax() && mend_odd_floats(&mut body) => {
                serde_json::from_slice(&body).map_err(InvalidMetrics::new)?
            }
            table => table.map_err(InvalidMetrics::new)?,
        }
    };
    table.series()
}

#[derive(Default, Deserialize)]
struct Table {
    meta: Meta,
    #[serde(default)]
    data: Vec<Row>,
}

#[derive(Default, Deserialize)]
struct Meta {
    step: Option<Wire<i64>>,
    #[serde(default)]
    legend: Vec<String>,
}

#[derive(Deserialize)]
struct Row {
    t: Wire<i64>,
    #[serde(default)]
    values: Vec<Wire<f64>>,
}

impl Table {
    fn series(mut self) -> Result<Vec<Series>, InvalidMetrics> {
        // They come with the newest first, but by nobody's promise.
        self.data.sort_by_key(|row| row.t.0);
        let step = self.meta.step.map_or(0, |step| step.0);
        let step = Duration::from_secs(step.try_into().unwrap_or_default());
        let columns = self.meta.legend.len();
        let mut points: Vec<_> =
            self.meta.legend.iter().map(|_| Vec::with_capacity(self.data.len())).collect();
        for Row { t: Wire(time), values } in self.data {
            if values.len() != columns {
                let found = values.len();
                return Err(InvalidMetrics::new(format_args!(
                    "there are {found} values for {columns} names at {time}"
                )));
            }
            let time = Timestamp::from_second(time).map_err(InvalidMetrics::new)?;
            for (points, Wire(value)) in points.iter_mut().zip(values) {
                points.push((time, value));
            }
        }
        let columns = self.meta.legend.iter().zip(points);
        columns.map(|(legend, points)| named(legend, step, points)).collect()
    }
}

/// Reads `AVERAGE:vm:UUID:cpu0`.
fn named(
    legend: &str,
    step: Duration,
    points: Vec<(Timestamp, f64)>,
) -> Result<Series, InvalidMetrics> {
    let mut parts = legend.splitn(4, ':');
    let mut part = || parts.next();
    let (Some(consolidation), Some(kind), Some(uuid), Some(name)) =
        (part(), part(), part(), part())
    else {
        let legend: String = legend.chars().take(80).collect();
        return Err(InvalidMetrics::new(format_args!("`{legend}` names no series")));
    };
    Ok(Series {
        kind: Kind::from(kind),
        uuid: uuid.to_owned(),
        name: name.to_owned(),
        consolidation: Consolidation::from(consolidation),
        step,
        points,
    })
}

fn xml(tokens: &mut Tokens<'_>) -> Result<Table, XmlError> {
    let mut table = Table::default();
    tokens.open("xport")?;
    each(tokens, "xport", |tokens, name| match name {
        "meta" => each(tokens, "meta", |tokens, name| match name {
            "step" => {
                table.meta.step = Some(Wire(number(&tokens.text_until("step")?)?));
                Ok(())
            }
            "legend" => each(tokens, "legend", |tokens, name| {
                table.meta.legend.push(tokens.text_until(name)?.into_owned());
                Ok(())
            }),
            _ => tokens.skip(),
        }),
        "data" => each(tokens, "data", |tokens, name| {
            table.data.push(row(tokens, name)?);
            Ok(())
        }),
        _ => tokens.skip(),
    })?;
    Ok(table)
}

fn row(tokens: &mut Tokens<'_>, parent: &str) -> Result<Row, XmlError> {
    let (mut time, mut values) = (None, Vec::new());
    each(tokens, parent, |tokens, name| {
        let text = tokens.text_until(name)?;
        match name {
            "t" => time = Some(number(&text)?),
            "v" => values.push(Wire(number(&text)?)),
            _ => {}
        }
        Ok(())
    })?;
    let time = time.ok_or_else(|| XmlError::new("a row has no time"))?;
    Ok(Row { t: Wire(time), values })
}

/// Calls for each child of an element whose tag has been read. The child's tag has been read as well, and
/// the call reads all up to and with its end.
pub(super) fn each<'a>(
    tokens: &mut Tokens<'a>,
    parent: &str,
    mut child: impl FnMut(&mut Tokens<'a>, &'a str) -> Result<(), XmlError>,
) -> Result<(), XmlError> {
    loop {
        match tokens.next_markup()? {
            Token::Open(name) => child(tokens, name)?,
            Token::Empty(_) => {}
            Token::Close(name) if name == parent => return Ok(()),
            token => return Err(XmlError::expected(&format!("</{parent}>"), &token)),
        }
    }
}

/// Reads a number. Rust reads what these servers write for those that are none, in any case.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Result<T, XmlError> {
    text.trim().parse().map_err(|_| {
        let text: String = text.chars().take(20).collect();
        XmlError::new(&format!("`{text}` is no number"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: &str = r#"{"meta":{"start":1000,"step":5,"end":1010,"rows":2,"columns":2,
        "legend":["AVERAGE:vm:6b1b:cpu0","MAX:host:ab12:a:b"]},
        "data":[{"t":1010,"values":[0.5,12]},{"t":1005,"values":[NaN,-Infinity]}]}"#;
    const TEXTS: &str = r#"{"meta":{"start":"1000","step":"5","end":"1010","rows":"2","columns":"2",
        "legend":["AVERAGE:vm:6b1b:cpu0","MAX:host:ab12:a:b"]},
        "data":[{"t":"1010","values":["0.5","12"]},{"t":"1005","values":["NaN","-Infinity"]}]}"#;
    const XML: &str = "<?xml version=\"1.0\"?>
        <xport><meta><start>1000</start><step>5</step><end>1010</end><rows>2</rows><columns>2</columns>
        <legend><entry>AVERAGE:vm:6b1b:cpu0</entry><entry>MAX:host:ab12:a:b</entry></legend></meta>
        <data><row><t>1010</t><v>0.5</v><v>12</v></row>
        <row><t>1005</t><v>NaN</v><v>-Infinity</v></row></data></xport>";

    #[test]
    fn every_form_gives_the_same_series_with_the_oldest_first() {
        for text in [JSON, TEXTS, XML] {
            let series = parse_updates(text.into()).unwrap();
            let [cpu, other] = series.as_slice() else { panic!("{series:?}") };
            assert_eq!(
                (&cpu.kind, cpu.uuid.as_str(), cpu.name.as_str()),
                (&Kind::Vm, "6b1b", "cpu0")
            );
            assert_eq!(cpu.consolidation, Consolidation::Average);
            assert_eq!(cpu.step, Duration::from_secs(5));
            assert!(cpu.points[0].1.is_nan());
            assert_eq!(cpu.latest(), Some((Timestamp::from_second(1010).unwrap(), 0.5)));
            assert_eq!((&other.kind, other.name.as_str()), (&Kind::Host, "a:b"));
            assert_eq!(other.points[0], (Timestamp::from_second(1005).unwrap(), f64::NEG_INFINITY));
        }
    }

    #[test]
    fn nothing_measured_is_no_series() {
        for text in [
            r#"{"meta":{"legend":[]},"data":[]}"#,
            r#"{"meta":{}}"#,
            "<xport><meta><legend/></meta><data/></xport>",
        ] {
            assert_eq!(parse_updates(text.into()), Ok(vec![]), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for text in [
            "",
            "null",
            r#"{"data":[]}"#,
            r#"{"meta":{"legend":["cpu0"]},"data":[]}"#,
            r#"{"meta":{"legend":["AVERAGE:vm:u:cpu0"]},"data":[{"t":1,"values":[]}]}"#,
            r#"{"meta":{"legend":[]},"data":[{"t":99999999999999999,"values":[]}]}"#,
            "<xport><meta></meta><data><row><v>1</v></row></data></xport>",
            "<xport><meta></meta><data><row><t>x</t></row></data></xport>",
            "<xport><meta></data></xport>",
            "<!DOCTYPE x><xport/>",
        ] {
            assert!(parse_updates(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_refused() {
        for text in [JSON, TEXTS, XML] {
            for cut in 0..text.len() - 1 {
                assert!(parse_updates(text.as_bytes()[..cut].to_vec()).is_err(), "{cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, place in 0..JSON.len(), byte: u8) {
            let _ = parse_updates(bytes);
            for text in [JSON, TEXTS, XML] {
                let mut text = text.as_bytes().to_vec();
                let place = place % text.len();
                text[place] = byte;
                let _ = parse_updates(text);
            }
        }
    }
}
