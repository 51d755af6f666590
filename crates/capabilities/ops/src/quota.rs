//! Whether a quota without room for another pod has room for a replacement.

use postern_kube::{KubeError, Reason};

/// Parses the server's message on an exceeded quota, `exceeded quota: NAME, requested: pods=1, used: pods=1, limited:
/// pods=1`: if the current use is within the limits, a pod that requests what its predecessor did fits as soon as
/// that one is gone. Also true if the amounts cannot be parsed: then only a try can show it.
pub(crate) fn fits_as_replacement(error: &KubeError) -> bool {
    matches!(&error.reason, Reason::Refused { message, .. } if fits(message))
}

fn fits(message: &str) -> bool {
    let Some((_, amounts)) = message.split_once("exceeded quota: ") else { return false };
    let part = |name: &str| {
        let (_, rest) = amounts.split_once(name)?;
        let end = rest.find(", ").unwrap_or(rest.len());
        Some(rest[..end].split(',').filter_map(|pair| pair.split_once('=')).collect::<Vec<_>>())
    };
    let (Some(used), Some(limited)) = (part(" used: "), part(" limited: ")) else { return true };
    used.iter().all(|(name, used)| {
        let limit = limited.iter().find(|(other, _)| other == name).and_then(|(_, limit)| thousandths(limit));
        thousandths(used).zip(limit).is_none_or(|(used, limit)| used <= limit)
    })
}

/// Parses a quantity as Kubernetes formats it (whole numbers with a suffix), in thousandths.
fn thousandths(quantity: &str) -> Option<u128> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(digits);
    let unit: u128 = match suffix {
        "m" => return number.parse().ok(),
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(unit)?.checked_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_full_or_too_small() {
        let amounts = |used: &str, limited: &str| {
            format!(
                "pods \"p\" is forbidden: exceeded quota: q, requested: x, used: {used}, limited: {limited}"
            )
        };
        assert!(fits(&amounts("limits.cpu=500m,pods=1", "limits.cpu=500m,pods=1")));
        assert!(fits(&amounts("requests.memory=64Mi", "requests.memory=1Gi")));
        assert!(!fits(&amounts("limits.cpu=500m,pods=1", "limits.cpu=500m,pods=0")));
        assert!(!fits(&amounts("limits.cpu=1", "limits.cpu=600m")));
        assert!(!fits("pods \"p\" is forbidden: violates PodSecurity"));
        // What cannot be parsed is tried.
        assert!(fits(&amounts("count/x=1.5", "count/x=1")) && fits("exceeded quota: q"));
    }
}
