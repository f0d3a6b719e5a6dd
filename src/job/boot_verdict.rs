//! The boot check's answers in a saved plan, and whether they are what is found.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::plan::saved::{BusVerdict, FindingFact, FindingLevel};
use crate::windows::{BootCheck, Finding, Gate, Level};

/// The answers as a saved plan says them.
pub(super) fn to_verdicts(answers: &[BootCheck]) -> Vec<BusVerdict> {
    answers.iter().map(to_verdict).collect()
}

fn to_verdict(answer: &BootCheck) -> BusVerdict {
    BusVerdict {
        bus: answer.bus.name().to_owned(),
        boots: answer.boots,
        findings: answer.findings.iter().map(to_fact).collect(),
    }
}

fn to_fact(finding: &Finding) -> FindingFact {
    let level = match finding.level {
        Level::Good => FindingLevel::Good,
        Level::Note => FindingLevel::Note,
        Level::NotJudged => FindingLevel::NotJudged,
        Level::Warning => FindingLevel::Warning,
        Level::Failure => FindingLevel::Failure,
    };
    FindingFact { gate: word(&finding.gate), level, code: word(&finding.code), text: finding.text.clone() }
}

/// The word of the JSON form.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}

/// What a plan says of the guest after its edits and is not so, each as a clause; empty if all of it is so. Compared are the
/// buses, and the gates and codes of failures and warnings. The texts name disks by their files, which may be renamed; the
/// warnings about the state depend on the space that is left.
pub(super) fn false_claims(planned: &[BusVerdict], found: &[BootCheck]) -> Vec<String> {
    found.iter().flat_map(|answer| false_claims_of_bus(planned, answer)).collect()
}

fn false_claims_of_bus(planned: &[BusVerdict], answer: &BootCheck) -> Vec<String> {
    let bus = answer.bus.name();
    let Some(planned) = planned.iter().find(|verdict| verdict.bus == bus) else {
        return vec![format!("it says nothing of {bus}")];
    };
    match (planned.boots, answer.boots) {
        (true, false) => {
            let reasons: Vec<&str> = answer.failures().map(|finding| finding.text.as_str()).collect();
            return vec![format!(
                "it says that the guest boots from {bus}, which it would not: {}",
                reasons.join("; ")
            )];
        }
        (false, true) => return vec![format!("it says that the guest does not boot from {bus}, which it would")],
        _ => {}
    }
    let found: Vec<FindingFact> = answer.findings.iter().map(to_fact).collect();
    let (said, is) = (claims(&planned.findings), claims(&found));
    let missing = found.iter().filter(|fact| is_claim(fact) && !said.contains(&claim(fact)));
    let wrong = planned.findings.iter().filter(|fact| is_claim(fact) && !is.contains(&claim(fact)));
    let missing = missing.map(|fact| format!("it does not say of {bus}: {}", fact.text));
    missing.chain(wrong.map(|fact| format!("it says of {bus}, which is not so: {}", fact.text))).collect()
}

/// What of a finding is the same wherever the image lies and whatever is edited elsewhere.
type Claim<'a> = (FindingLevel, &'a str, &'a str);

fn claim(fact: &FindingFact) -> Claim<'_> {
    (fact.level, &fact.gate, &fact.code)
}

fn is_claim(fact: &FindingFact) -> bool {
    fact.level >= FindingLevel::Warning && fact.gate != word(&Gate::State)
}

fn claims(facts: &[FindingFact]) -> BTreeSet<Claim<'_>> {
    facts.iter().filter(|fact| is_claim(fact)).map(claim).collect()
}

/// Failures and warnings that a plan did not find, by their texts.
pub(super) fn new_problems(planned: &[BusVerdict], found: &[BootCheck]) -> Vec<String> {
    let known: BTreeSet<&str> =
        planned.iter().flat_map(|verdict| &verdict.findings).map(|fact| fact.text.as_str()).collect();
    let problems = found.iter().flat_map(|answer| &answer.findings).filter(|finding| finding.level >= Level::Warning);
    let texts: BTreeSet<&str> = problems.map(|finding| finding.text.as_str()).collect();
    texts.difference(&known).map(|text| (*text).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::{Bus, Code};

    fn answer(boots: bool, findings: &[(Gate, Level, Code)]) -> BootCheck {
        let findings =
            findings.iter().map(|&(gate, level, code)| Finding { gate, level, code, text: format!("{code:?}") });
        let mut answer = BootCheck::new(Bus::VirtioBlk);
        (answer.boots, answer.findings) = (boots, findings.collect());
        answer
    }

    #[test]
    fn a_verdict_is_compared_by_bus_and_by_what_speaks_against_it() {
        let found = answer(
            true,
            &[
                (Gate::Start, Level::Warning, Code::Unsigned),
                (Gate::State, Level::Warning, Code::LittleSpace),
                (Gate::Start, Level::Good, Code::Service),
            ],
        );
        let true_claim = to_verdicts(std::slice::from_ref(&found));
        let compare = |change: &dyn Fn(&mut BusVerdict)| {
            let mut planned = true_claim.clone();
            planned.iter_mut().for_each(change);
            false_claims(&planned, std::slice::from_ref(&found)).join("; ")
        };
        assert_eq!(compare(&|_| {}), "");
        assert_eq!(compare(&|verdict| verdict.findings.iter_mut().for_each(|fact| fact.text.clear())), "");
        assert_eq!(compare(&|verdict| verdict.findings.retain(|fact| fact.gate != "state")), "");
        assert!(compare(&|verdict| verdict.boots = false).contains("does not boot from virtio-blk, which it would"));
        assert!(compare(&|verdict| verdict.findings.clear()).contains("it does not say of virtio-blk: Unsigned"));
        let another =
            |verdict: &mut BusVerdict| verdict.findings.iter_mut().for_each(|fact| fact.code = "x".to_owned());
        assert!(compare(&another).contains("which is not so: Unsigned"));
        assert_eq!(compare(&|verdict| verdict.bus.clear()), "it says nothing of virtio-blk");
        let broken = answer(false, &[(Gate::Start, Level::Failure, Code::NoService)]);
        let claims = false_claims(&true_claim, std::slice::from_ref(&broken));
        assert_eq!(claims, ["it says that the guest boots from virtio-blk, which it would not: NoService"]);
        assert_eq!(new_problems(&true_claim, &[broken, found]), ["NoService"]);
    }
}
