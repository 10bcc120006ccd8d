//! What the demo says: lines on stdout, and rows as a small table.

use std::io::Write;

const ROWS_SHOWN_MAX: usize = 8;

/// A line on stdout. That nobody reads it (`pgherd demo | head`) is no reason to fail.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Rows under their column names, the first few of them; NULL as nothing.
pub(super) fn table(columns: &[String], rows: &[Vec<Option<String>>], indent: &str) -> String {
    let shown = || rows.iter().take(ROWS_SHOWN_MAX);
    let width = |index: usize, name: &String| {
        let values = shown().filter_map(|row| row.get(index)?.as_ref());
        values
            .chain([name])
            .map(|text| text.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, name)| width(index, name))
        .collect();
    let line = |cells: Vec<&str>| {
        let cells: Vec<_> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{indent}{}", cells.join("  ").trim_end())
    };
    let mut lines = vec![
        line(columns.iter().map(String::as_str).collect()),
        format!(
            "{indent}{}",
            widths
                .iter()
                .map(|width| "─".repeat(*width))
                .collect::<Vec<_>>()
                .join("  ")
        ),
    ];
    lines.extend(shown().map(|row| {
        line(
            row.iter()
                .map(|cell| cell.as_deref().unwrap_or_default())
                .collect(),
        )
    }));
    if rows.len() > ROWS_SHOWN_MAX {
        lines.push(format!("{indent}… {} rows in all", rows.len()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_values_and_shows_the_first_rows() {
        let columns = ["id", "name"].map(str::to_owned);
        let row = |id: usize| vec![Some(id.to_string()), (id != 2).then(|| "Žofie".to_owned())];
        let text = table(&columns, &[row(100), row(2)], "  ");
        assert_eq!(text, "  id   name\n  ───  ─────\n  100  Žofie\n  2");
        let long = table(&columns, &(0..20).map(row).collect::<Vec<_>>(), "");
        assert_eq!(long.lines().count(), 2 + ROWS_SHOWN_MAX + 1);
        assert!(long.ends_with("… 20 rows in all"));
    }
}
