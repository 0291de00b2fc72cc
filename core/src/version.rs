//! Which versions of agent and hub belong together: up to [`SUPPORTED_MINORS`] minors apart, either way.

/// Minors that agent and hub may be apart.
pub const SUPPORTED_MINORS: u64 = 2;

/// What is to be said where an agent and a hub are too far apart; `None` also where one of the texts is no version.
pub fn warning(agent: &str, hub: &str) -> Option<String> {
    let ((agent_major, agent_minor), (hub_major, hub_minor)) = (major_minor(agent)?, major_minor(hub)?);
    if agent_major == hub_major && agent_minor.abs_diff(hub_minor) <= SUPPORTED_MINORS {
        return None;
    }
    let (older, name) =
        if (agent_major, agent_minor) < (hub_major, hub_minor) { ("agent", agent) } else { ("hub", hub) };
    let other = if older == "agent" { hub } else { agent };
    Some(format!(
        "the {older} is of version {name}, more than {SUPPORTED_MINORS} minors behind {other}: upgrade the {older}"
    ))
}

fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.trim_start_matches('v').splitn(3, '.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_minors_apart_is_fine_either_way_and_three_is_said() {
        for (agent, hub) in [("0.1.0", "0.3.9"), ("0.3.0", "0.1.0"), ("1.4.2", "1.4.0-rc.1"), ("v0.2.0", "0.2.0")] {
            assert_eq!(warning(agent, hub), None, "{agent} {hub}");
        }
        let text = warning("0.1.0", "0.4.0").unwrap();
        assert_eq!(text, "the agent is of version 0.1.0, more than 2 minors behind 0.4.0: upgrade the agent");
        assert!(warning("0.9.0", "0.4.0").is_some_and(|text| text.ends_with("upgrade the hub")));
        assert!(warning("1.0.0", "0.9.0").is_some(), "another major is another product");
        assert_eq!(warning("", "0.4.0"), None);
        assert_eq!(warning("x.y", "0.4.0"), None);
    }
}
