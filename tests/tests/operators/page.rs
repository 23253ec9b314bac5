//! The reports as the page `docs/operators.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::VERSION;
use super::case::{Outcome, Report};

const HEAD: &str = "\
# ONNX operators

What dram runs of ONNX, by ONNX's own node tests: small models with inputs and the outputs that the
reference implementation gives, in the Python package `onnx` {VERSION}. This page is written by
`DRAM_WRITE=1 cargo test --release --test dram node_tests`; the same test, without the variable, fails
where a case that passed does not pass any more, where an answer is wrong, and where anything panics.
A case passes where types and shapes are the same, whole numbers are equal and floats are within 0.1 %
and 1e-7, ONNX's own tolerance. Half-precision results may be two steps of their type away, of which one
is more than 0.1 %. Where f32 sums cancel out (`test_dft*`, `test_gru_seq_length`) 1e-5 stands for 1e-7, as
onnxruntime has it for all cases. A case of an operator that is written out (`*_expanded`) counts under
that operator, and is left out with it.
";

pub(super) fn page(reports: &[Report]) -> String {
    let count = |of: fn(&Report) -> bool| reports.iter().filter(|report| of(report)).count();
    let (in_scope, passed) = (count(Report::in_scope), count(Report::passed));
    let mut page = HEAD.replace("{VERSION}", VERSION);
    let _ = write!(
        page,
        "\nOf {} cases, {} are not about inference and are left out. Of the other {in_scope}, {passed} pass \
         ({:.1} %), and {} are refused with an error. No answer is wrong.\n",
        reports.len(),
        reports.len() - in_scope,
        100.0 * passed as f64 / in_scope as f64,
        in_scope - passed,
    );
    operators(&mut page, reports);
    refused(&mut page, reports);
    left_out(&mut page, reports);
    page
}

fn operators(page: &mut String, reports: &[Report]) {
    page.push_str("\n## By operator\n\n| operator | cases | pass | refused |\n|---|--:|--:|--:|\n");
    let mut rows: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.in_scope()) {
        let (cases, passed) = rows.entry(&report.operator).or_default();
        *cases += 1;
        *passed += usize::from(report.passed());
    }
    for (operator, (cases, passed)) in rows {
        let _ = writeln!(page, "| {operator} | {cases} | {passed} | {} |", cases - passed);
    }
}

fn refused(page: &mut String, reports: &[Report]) {
    page.push_str("\n## Refused\n\n| operator | cases | message |\n|---|---|---|\n");
    let mut rows: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for report in reports {
        if let Outcome::Refused(message) = &report.outcome {
            // Beyond the operator, a finding names the node and gives general advice.
            let message = message.split(" at node ").next().unwrap_or_default();
            rows.entry((&report.operator, message)).or_default().push(&report.name);
        }
    }
    for ((operator, message), cases) in rows {
        let message = message.replace('|', "\\|");
        let _ = writeln!(page, "| {operator} | {} | {message} |", cases.join(", "));
    }
}

fn left_out(page: &mut String, reports: &[Report]) {
    page.push_str("\n## Left out\n");
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for report in reports {
        if let Outcome::LeftOut(why) = report.outcome {
            reasons.entry(why).or_default().push(&report.name);
        }
    }
    for (why, names) in reasons {
        let _ = writeln!(page, "\n**{}: {why}.** {}", names.len(), names.join(", "));
    }
}
