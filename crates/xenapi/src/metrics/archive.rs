//! Archives: all that is kept of one object, as `vm_rrd` and `host_rrd` answer.
//!
//! An archive has the names of what was measured once, and then a table for each time that values are
//! kept and each way to consolidate them.

use std::time::Duration;

use jiff::Timestamp;

use super::updates::{each, number};
use super::{Consolidation, InvalidMetrics, Kind, Series};
use crate::wire::{Tokens, XmlError};

/// Reads the archive of an object, which does not say itself of which it is.
///
/// There is a series for each name, each consolidation and each step from value to value.
pub fn parse_archive(kind: &Kind, uuid: &str, body: &[u8]) -> Result<Vec<Series>, InvalidMetrics> {
    let text = std::str::from_utf8(body).map_err(InvalidMetrics::new)?;
    let archive = read(&mut Tokens::new(text)).map_err(InvalidMetrics::new)?;
    let mut series = Vec::with_capacity(archive.names.len() * archive.tables.len());
    for table in archive.tables {
        let every = archive.step.checked_mul(table.steps).filter(|every| *every > 0);
        let every = every.ok_or_else(|| InvalidMetrics::new("its values have no time"))?;
        let times = times(archive.updated, every, table.rows.len())?;
        for (column, name) in archive.names.iter().enumerate() {
            let mut points = Vec::with_capacity(times.len());
            for (time, row) in times.iter().zip(&table.rows) {
                let value = row.get(column).ok_or_else(|| {
                    let (found, names) = (row.len(), archive.names.len());
                    InvalidMetrics::new(format_args!("there are {found} values for {names} names"))
                })?;
                points.push((*time, *value));
            }
            series.push(Series {
                kind: kind.clone(),
                uuid: uuid.to_owned(),
                name: name.clone(),
                consolidation: table.consolidation.clone(),
                step: Duration::from_secs(every.unsigned_abs()),
                points,
            });
        }
    }
    Ok(series)
}

/// The times of the rows: the last one is the last whole step before the archive was updated.
fn times(updated: i64, every: i64, rows: usize) -> Result<Vec<Timestamp>, InvalidMetrics> {
    let last = updated.saturating_sub(updated.rem_euclid(every));
    let rows = i64::try_from(rows).map_err(InvalidMetrics::new)?;
    (0..rows)
        .rev()
        .map(|back| {
            let second = back.checked_mul(every).and_then(|back| last.checked_sub(back));
            let second = second.ok_or_else(|| InvalidMetrics::new("its times are out of range"))?;
            Timestamp::from_second(second).map_err(InvalidMetrics::new)
        })
        .collect()
}

#[derive(Default)]
struct Archive {
    step: i64,
    updated: i64,
    names: Vec<String>,
    tables: Vec<Table>,
}

struct Table {
    consolidation: Consolidation,
    /// How many steps of the archive become one value.
    steps: i64,
    rows: Vec<Vec<f64>>,
}

fn read(tokens: &mut Tokens<'_>) -> Result<Archive, XmlError> {
    let mut archive = Archive::default();
    tokens.open("rrd")?;
    each(tokens, "rrd", |tokens, name| {
        match name {
            "step" => archive.step = number(&tokens.text_until(name)?)?,
            // Some write it with a fraction.
            "lastupdate" => archive.updated = whole(number(&tokens.text_until(name)?)?)?,
            "ds" => archive.names.push(source(tokens)?),
            "rra" => archive.tables.push(table(tokens)?),
            _ => tokens.skip()?,
        }
        Ok(())
    })?;
    Ok(archive)
}

fn whole(seconds: f64) -> Result<i64, XmlError> {
    // The years that a timestamp can have are well within it.
    if !(-1e12..1e12).contains(&seconds) {
        return Err(XmlError::new("the time of its last update is out of range"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is small enough, and whole seconds are meant"
    )]
    Ok(seconds.floor() as i64)
}

/// The name of a source of data.
fn source(tokens: &mut Tokens<'_>) -> Result<String, XmlError> {
    let mut found = None;
    each(tokens, "ds", |tokens, name| {
        if name == "name" {
            found = Some(tokens.text_until(name)?.trim().to_owned());
            return Ok(());
        }
        tokens.skip()
    })?;
    found.ok_or_else(|| XmlError::new("a source of data has no name"))
}

fn table(tokens: &mut Tokens<'_>) -> Result<Table, XmlError> {
    let consolidation = Consolidation::Unknown(String::new());
    let mut table = Table { consolidation, steps: 0, rows: Vec::new() };
    each(tokens, "rra", |tokens, name| {
        match name {
            "cf" => table.consolidation = Consolidation::from(tokens.text_until(name)?.trim()),
            "pdp_per_row" => table.steps = number(&tokens.text_until(name)?)?,
            "database" => each(tokens, name, |tokens, name| {
                table.rows.push(row(tokens, name)?);
                Ok(())
            })?,
            _ => tokens.skip()?,
        }
        Ok(())
    })?;
    Ok(table)
}

fn row(tokens: &mut Tokens<'_>, parent: &str) -> Result<Vec<f64>, XmlError> {
    let mut values = Vec::new();
    each(tokens, parent, |tokens, name| {
        values.push(number(&tokens.text_until(name)?)?);
        Ok(())
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const XML: &str = "<?xml version=\"1.0\"?><rrd><version>0003</version><step>5</step>
        <lastupdate>1000000123.5</lastupdate>
        <ds><name>cpu0</name><type>GAUGE</type><min>0.0</min><max>Infinity</max></ds>
        <ds><name>memory</name><type>GAUGE</type></ds>
        <rra><cf>AVERAGE</cf><pdp_per_row>1</pdp_per_row><params><xff>0.5000</xff></params>
        <cdp_prep><ds><value>0.0</value></ds><ds/></cdp_prep>
        <database><row><v>NaN</v><v>1.0</v></row><row><v>0.25</v><v>2.1475e+09</v></row></database></rra>
        <rra><cf>MIN</cf><pdp_per_row>12</pdp_per_row>
        <database><row><v>0.5</v><v>3</v></row></database></rra></rrd>";

    #[test]
    fn an_archive_has_a_series_for_each_name_and_each_table() {
        let series = parse_archive(&Kind::Vm, "6b1b", XML.as_bytes()).unwrap();
        let names: Vec<_> = series
            .iter()
            .map(|series| {
                (series.name.as_str(), series.consolidation.to_string(), series.step.as_secs())
            })
            .collect();
        let expected = [
            ("cpu0", "AVERAGE".into(), 5),
            ("memory", "AVERAGE".into(), 5),
            ("cpu0", "MIN".into(), 60),
            ("memory", "MIN".into(), 60),
        ];
        assert_eq!(names, expected);
        let times: Vec<i64> = series[0].points.iter().map(|(time, _)| time.as_second()).collect();
        assert_eq!(times, [1_000_000_115, 1_000_000_120]);
        assert!(series[0].points[0].1.is_nan());
        assert_eq!(series[1].latest(), Some((series[1].points[1].0, 2.1475e9)));
        assert_eq!(series[2].points[0].0.as_second(), 1_000_000_080);
        assert!(series.iter().all(|series| series.uuid == "6b1b" && series.kind == Kind::Vm));
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        for text in [
            "",
            "{}",
            "<rrd>",
            "<rrd><step>x</step></rrd>",
            "<rrd><step>0</step><rra></rra></rrd>",
            "<rrd><step>5</step><rra><pdp_per_row>9223372036854775807</pdp_per_row></rra></rrd>",
            "<rrd><lastupdate>1e300</lastupdate></rrd>",
            "<rrd><ds></ds></rrd>",
            "<rrd><step>5</step><ds><name>a</name></ds><rra><pdp_per_row>1</pdp_per_row><database><row></row></database></rra></rrd>",
        ] {
            assert!(parse_archive(&Kind::Vm, "", text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_archive_that_is_cut_anywhere_is_refused() {
        for cut in 0..XML.len() - 1 {
            assert!(parse_archive(&Kind::Vm, "", &XML.as_bytes()[..cut]).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, place in 0..XML.len(), byte: u8) {
            let _ = parse_archive(&Kind::Host, "", &bytes);
            let mut text = XML.as_bytes().to_vec();
            text[place] = byte;
            let _ = parse_archive(&Kind::Host, "", &text);
        }
    }
}
