use proptest::prelude::*;

use super::*;

fn policy(json: &str) -> Policy {
    serde_json::from_str(json).unwrap()
}

fn asked(policy: &Policy, address: &str, port: Option<u16>) -> Result<(), String> {
    policy.permit(Destination { address: address.parse().unwrap(), port })
}

#[test]
fn by_default_everything_is_allowed_but_what_no_service_lives_on() {
    let policy = Policy::default();
    assert_eq!(default_rules().len(), DEFAULT_RULES.len());
    for allowed in ["127.0.0.1", "192.168.1.1", "8.8.8.8", "::1", "2001:db8::1", "fd00::1", "169.253.0.1", "100.100.100.201"] {
        assert_eq!(asked(&policy, allowed, Some(80)), Ok(()), "{allowed}");
    }
    for denied in
        ["169.254.1.1", "169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "224.0.0.1", "ff02::1", "255.255.255.255"]
    {
        assert!(asked(&policy, denied, None).is_err(), "{denied}");
    }
    assert!(asked(&policy, "0.0.0.0", None).is_err() && asked(&policy, "::", None).is_err());
}

#[test]
fn the_refusal_names_the_rule() {
    let refused = |json: &str, address: &str, port| asked(&policy(json), address, port).unwrap_err();
    assert_eq!(refused("{}", "169.254.7.7", None), r#"policy: 169.254.0.0/16 is denied (default rule "link-local")"#);
    assert_eq!(refused(r#"{"networks": {"deny": ["10.0.0.0/8"]}}"#, "10.1.2.3", None), "policy: 10.0.0.0/8 is denied (networks.deny)");
    assert_eq!(
        refused(r#"{"networks": {"others": "deny"}}"#, "10.1.2.3", None),
        r#"policy: 10.1.2.3 is in none of the networks allowed (networks.others is "deny")"#
    );
    assert_eq!(refused(r#"{"ports": {"deny": ["20-25"]}}"#, "10.1.2.3", Some(25)), "policy: port 25 is denied (ports.deny: 20-25)");
    assert_eq!(
        refused("{}", "64:ff9b::169.254.1.2", None),
        r#"policy: 169.254.0.0/16 is denied (default rule "link-local"), and 64:ff9b::a9fe:102 leads to 169.254.1.2"#
    );
}

#[test]
fn metadata_stays_closed_until_it_is_allowed_by_name() {
    let wide = policy(r#"{"networks": {"allow": ["0.0.0.0/0", "169.254.0.0/16"]}}"#);
    assert_eq!(asked(&wide, "169.254.1.1", None), Ok(()));
    assert!(asked(&wide, "169.254.169.254", None).is_err());
    let named = policy(r#"{"networks": {"allow": ["169.254.169.254"]}}"#);
    assert_eq!(asked(&named, "169.254.169.254", None), Ok(()));
}

#[test]
fn the_longest_prefix_wins_and_deny_wins_ties() {
    let policy = policy(r#"{"networks": {"allow": ["10.1.0.0/16", "10.2.0.0/16"], "deny": ["10.0.0.0/8", "10.2.0.0/16"]}}"#);
    assert_eq!(asked(&policy, "10.1.2.3", None), Ok(()));
    assert!(asked(&policy, "10.2.2.3", None).is_err());
    assert!(asked(&policy, "10.3.2.3", None).is_err());
    assert_eq!(asked(&policy, "11.0.0.1", None), Ok(()));
}

#[test]
fn an_address_behind_another_spelling_is_the_same_address() {
    let policy = policy(r#"{"networks": {"deny": ["127.0.0.0/8"]}}"#);
    for spelled in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::1", "::127.0.0.1"] {
        assert!(asked(&policy, spelled, None).is_err(), "{spelled}");
    }
    assert_eq!(asked(&policy, "::1", None), Ok(()));
}

#[test]
fn the_narrower_range_of_ports_wins() {
    let policy = policy(r#"{"ports": {"allow": [443, "8000-8100"], "deny": ["1-1023", 8080], "others": "deny"}}"#);
    assert_eq!(asked(&policy, "10.0.0.1", Some(443)), Ok(()));
    assert_eq!(asked(&policy, "10.0.0.1", Some(8001)), Ok(()));
    assert_eq!(asked(&policy, "10.0.0.1", None), Ok(()));
    for denied in [80, 8080, 9000] {
        assert!(asked(&policy, "10.0.0.1", Some(denied)).is_err(), "{denied}");
    }
}

#[test]
fn kinds_are_named_and_unknown_ones_refused() {
    let only = policy(r#"{"kinds": {"allow": ["ping", "dns"], "deny": ["dns"], "others": "deny"}}"#);
    assert_eq!(only.permit_kind("ping"), Ok(()));
    assert_eq!(only.permit_kind("dns").unwrap_err(), "policy: the kind dns is denied (kinds.deny)");
    assert!(only.permit_kind("tcp").is_err());
    assert_eq!(Policy::default().permit_kind("tcp"), Ok(()));
    let error = serde_json::from_str::<Policy>(r#"{"kinds": {"deny": ["pign"]}}"#).unwrap_err();
    assert!(error.to_string().contains("\"pign\" is not a kind of probe: there are ping,"), "{error}");
    assert!(serde_json::from_str::<Policy>(r#"{"network": {}}"#).is_err());
}

#[test]
fn a_replaced_policy_holds_for_every_clone_and_a_wrong_one_changes_nothing() {
    let policy = Policy::default();
    let gate: Arc<dyn Gate> = Arc::new(policy.clone());
    let destination = Destination { address: Ipv4Addr::LOCALHOST.into(), port: None };
    let settings = |json| serde_json::from_str::<PolicySettings>(json).unwrap();
    policy.replace(settings(r#"{"networks": {"others": "deny"}}"#)).unwrap();
    assert!(gate.permit(destination).is_err());
    assert!(policy.replace(settings(r#"{"kinds": {"deny": ["pign"]}}"#)).is_err());
    assert!(gate.permit(destination).is_err());
}

fn prefixes() -> impl Strategy<Value = Network> {
    (any::<u32>(), 0_u8..=32).prop_map(|(bits, length)| Network(IpNet::new(Ipv4Addr::from(bits).into(), length).unwrap().trunc()))
}

proptest! {
    #[test]
    fn what_is_denied_by_name_is_denied_in_every_spelling(bits: u32) {
        let address = Ipv4Addr::from(bits);
        let networks = Rules { deny: vec![Network(IpAddr::from(address).into())], ..Rules::default() };
        let policy = Policy::new(PolicySettings { networks, ..PolicySettings::default() }).unwrap();
        let [a, b, c, d] = address.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        for spelled in [
            IpAddr::V4(address),
            address.to_ipv6_mapped().into(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(),
            Ipv6Addr::new(0x2002, high, low, 1, 2, 3, 4, 5).into(),
        ] {
            prop_assert!(policy.permit(Destination { address: spelled, port: None }).is_err(), "{spelled}");
        }
    }

    #[test]
    fn one_more_denial_never_opens_anything(allow in prop::collection::vec(prefixes(), 0..4), deny in prop::collection::vec(prefixes(), 0..4), more in prefixes(), bits: u32) {
        let of = |deny| Policy::new(PolicySettings { networks: Rules { allow: allow.clone(), deny, others: Others::Allow }, ..PolicySettings::default() }).unwrap();
        let before = of(deny.clone());
        let after = of(deny.into_iter().chain([more]).collect());
        let destination = Destination { address: Ipv4Addr::from(bits).into(), port: None };
        prop_assert!(before.permit(destination).is_ok() || after.permit(destination).is_err());
    }

    #[test]
    fn an_allowance_wider_than_a_default_rule_never_opens_it(bits: u32, length in 0_u8..=3) {
        let wide = Network(IpNet::new(Ipv4Addr::from(bits).into(), length).unwrap().trunc());
        let networks = Rules { allow: vec![wide], ..Rules::default() };
        let policy = Policy::new(PolicySettings { networks, ..PolicySettings::default() }).unwrap();
        for closed in [Ipv4Addr::new(224, 1, 2, 3), Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED] {
            prop_assert!(policy.permit(Destination { address: closed.into(), port: None }).is_err(), "{closed}");
        }
    }
}
