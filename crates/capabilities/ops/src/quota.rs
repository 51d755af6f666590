//! Whether a quota that has no room for one pod more has room for one in another's place.

use postern_kube::{KubeError, Reason};

/// From the server's words on an exceeded quota, `exceeded quota: NAME, requested: pods=1, used: pods=1, limited: pods=1`:
/// whether what is used now is within the limits, so that a pod which asks for what its predecessor did fits in as soon as
/// that one is gone. Also where the amounts cannot be read: then only trying tells.
pub(crate) fn has_room_then(error: &KubeError) -> bool {
    matches!(&error.reason, Reason::Refused { message, .. } if fits(message))
}

fn fits(message: &str) -> bool {
    let Some((_, said)) = message.split_once("exceeded quota: ") else { return false };
    let part = |name: &str| {
        let (_, rest) = said.split_once(name)?;
        let end = rest.find(", ").unwrap_or(rest.len());
        Some(rest[..end].split(',').filter_map(|pair| pair.split_once('=')).collect::<Vec<_>>())
    };
    let (Some(used), Some(limited)) = (part(" used: "), part(" limited: ")) else { return true };
    used.iter().all(|(name, used)| {
        let limit = limited.iter().find(|(other, _)| other == name).and_then(|(_, limit)| thousandths(limit));
        thousandths(used).zip(limit).is_none_or(|(used, limit)| used <= limit)
    })
}

/// A quantity as Kubernetes writes it (whole numbers with a suffix), in thousandths.
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
        let said = |used: &str, limited: &str| {
            format!(
                "pods \"p\" is forbidden: exceeded quota: q, requested: x, used: {used}, limited: {limited}"
            )
        };
        assert!(fits(&said("limits.cpu=500m,pods=1", "limits.cpu=500m,pods=1")));
        assert!(fits(&said("requests.memory=64Mi", "requests.memory=1Gi")));
        assert!(!fits(&said("limits.cpu=500m,pods=1", "limits.cpu=500m,pods=0")));
        assert!(!fits(&said("limits.cpu=1", "limits.cpu=600m")));
        assert!(!fits("pods \"p\" is forbidden: violates PodSecurity"));
        // What cannot be read is tried.
        assert!(fits(&said("count/x=1.5", "count/x=1")) && fits("exceeded quota: q"));
    }
}
