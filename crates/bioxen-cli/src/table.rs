//! Tables that fit the terminal.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};

/// A column: its heading, and on which side its cells stand.
pub(crate) struct Column(pub(crate) &'static str, pub(crate) CellAlignment);

/// A column of text.
pub(crate) const fn text(heading: &'static str) -> Column {
    Column(heading, CellAlignment::Left)
}

/// A column of quantities.
pub(crate) const fn quantity(heading: &'static str) -> Column {
    Column(heading, CellAlignment::Right)
}

/// Renders names with what is to be said about each, indented, without headings.
pub(crate) fn list(entries: impl IntoIterator<Item = [String; 2]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for [name, text] in entries {
        table.add_row([name, text]);
    }
    for (column, padding) in table.column_iter_mut().zip([(2, 1), (1, 0)]) {
        column.set_padding(padding);
    }
    table.trim_fmt() + "\n"
}

/// Renders rows below headings. On a terminal long cells are folded to its width.
pub(crate) fn render<const N: usize>(columns: [Column; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    let underlined = LineStyle::none().fill('─').junction('─');
    table
        .load_style(presets::NOTHING.header_separator(underlined))
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.each_ref().map(|Column(heading, _)| Cell::new(heading)));
    for row in rows {
        table.add_row(row);
    }
    for (column, Column(_, alignment)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 1));
        column.set_cell_alignment(alignment);
    }
    table.trim_fmt() + "\n"
}
