use proptest::prelude::*;

use ipnet::IpNet;
use std::net::Ipv6Addr;

use super::*;

fn policy(json: &str) -> Policy {
    serde_json::from_str(json).unwrap()
}

fn asked(policy: &Policy, address: &str, port: Option<u16>) -> Result<(), String> {
    policy.permit(Destination { address: address.parse().unwrap(), port, packets: 1 })
}

#[test]
fn by_default_everything_is_allowed_but_what_no_service_lives_on() {
    let policy = Policy::default();
    assert!(rules::DEFAULTS.iter().all(|(network, _)| network.parse::<IpNet>().is_ok()));
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
    let destination = Destination { address: Ipv4Addr::LOCALHOST.into(), port: None, packets: 1 };
    let settings = |json| serde_json::from_str::<PolicySettings>(json).unwrap();
    policy.replace(settings(r#"{"networks": {"others": "deny"}}"#)).unwrap();
    assert!(gate.permit(destination).is_err());
    assert!(policy.replace(settings(r#"{"kinds": {"deny": ["pign"]}}"#)).is_err());
    assert!(gate.permit(destination).is_err());
}

#[test]
fn names_are_judged_by_their_longest_suffix_and_deny_wins_ties() {
    let policy =
        policy(r#"{"names": {"allow": ["ok.corp.example"], "deny": ["corp.example", "*.local", "internal", "ok.corp.example.org"]}}"#);
    for denied in ["corp.example", "www.CORP.example.", "a.b.corp.example", "printer.local", "metadata.google.internal", "internal."] {
        let rule = policy.permit_name(denied).unwrap_err();
        assert!(rule.contains("is denied (names.deny), asked was ") && !rule.ends_with('.'), "{rule}");
    }
    for allowed in ["example", "notcorp.example", "ok.corp.example", "x.ok.corp.example", "corp.example.com", "internal.example", ""] {
        assert_eq!(policy.permit_name(allowed), Ok(()), "{allowed}");
    }
    let only = self::policy(r#"{"names": {"allow": ["shop.example"], "others": "deny"}}"#);
    assert_eq!(only.permit_name("www.shop.example"), Ok(()));
    assert_eq!(
        only.permit_name("cdn.example.").unwrap_err(),
        r#"policy: the name is not among those allowed (names.others is "deny"), asked was cdn.example"#
    );
    // A dot within a label is none between two: this name is below example.com alone.
    assert!(self::policy(r#"{"names": {"allow": ["b.example"], "others": "deny"}}"#).permit_name(r"a\.b.example").is_err());
}

#[test]
fn methods_are_words_and_the_demand_of_a_run_is_bounded() {
    use vantage_contract::v1::{HttpProbe, PingProbe, Probe, probe::Kind};
    let plan = |kind| Plan::parse(&Probe { kind: Some(kind), ..Probe::default() }).unwrap();
    let http = |method: &str, body: usize| {
        plan(Kind::Http(HttpProbe { url: "http://a/".into(), method: method.into(), body: "x".repeat(body), ..HttpProbe::default() }))
    };
    let policy = policy(
        r#"{"methods": {"allow": ["GET", "POST"], "others": "deny"},
            "bounds": {"http": {"max_payload_size_bytes": 10}, "ping": {"max_requests": 3, "min_spacing": "500ms"}}}"#,
    );
    assert_eq!(policy.permit_plan(&http("", 10)), Ok(()), "GET is the default");
    assert!(policy.permit_plan(&http("PUT", 0)).unwrap_err().contains("the method PUT is not among those allowed"));
    assert_eq!(
        policy.permit_plan(&http("POST", 11)).unwrap_err(),
        "policy: 11 bytes of payload, and bounds.http.max_payload_size_bytes is 10"
    );
    let ping = |count, millis: i32| {
        let spacing = Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 });
        plan(Kind::Ping(PingProbe { host: "a".into(), count, spacing, ..PingProbe::default() }))
    };
    assert_eq!(policy.permit_plan(&ping(3, 500)), Ok(()));
    assert_eq!(policy.permit_plan(&ping(1, 1)), Ok(()), "one request has no spacing");
    assert!(policy.permit_plan(&ping(2, 499)).unwrap_err().ends_with("bounds.ping.min_spacing is 500ms"));
    assert!(policy.permit_plan(&ping(4, 900)).unwrap_err().ends_with("bounds.ping.max_requests is 3"));
}

#[test]
fn the_monitors_own_listeners_are_closed_at_every_address_that_leads_to_them() {
    let own = |at: &str, json: &str| {
        let policy = policy(json);
        policy.note_own(vec![(OwnListener::Grpc, at.parse().unwrap())]);
        policy
    };
    let denied = |policy: &Policy, address: &str, port| {
        asked(policy, address, Some(port)).is_err_and(|rule| rule.contains("this monitor's own listener grpc"))
    };
    let loopback = own("127.0.0.1:54321", "{}");
    assert!(denied(&loopback, "127.0.0.1", 54321) && denied(&loopback, "::ffff:127.0.0.1", 54321));
    assert!(!denied(&loopback, "127.0.0.1", 54322) && !denied(&loopback, "127.0.0.2", 54321), "nobody listens there");
    for (any, v6) in [("0.0.0.0:54321", false), ("[::]:54321", true)] {
        let policy = own(any, r#"{"networks": {"allow": ["127.0.0.0/8", "::1"]}, "ports": {"allow": [54321]}}"#);
        assert!(denied(&policy, "127.0.0.1", 54321) && denied(&policy, "127.8.9.10", 54321), "{any}");
        assert_eq!(denied(&policy, "::1", 54321), v6, "{any}");
        assert_eq!(asked(&policy, "192.0.2.1", Some(54321)), Ok(()), "a port of another machine");
        assert_eq!(asked(&policy, "127.0.0.1", None), Ok(()), "a ping");
    }
    let named = own("0.0.0.0:54321", r#"{"own_listeners": {"allow": ["grpc"]}}"#);
    assert_eq!(asked(&named, "127.0.0.1", Some(54321)), Ok(()));
    named.note_own(vec![(OwnListener::Http, "127.0.0.1:54322".parse().unwrap())]);
    assert!(asked(&named, "127.0.0.1", Some(54322)).unwrap_err().contains("own listener http"));
}

#[test]
fn a_directed_broadcast_is_open_to_its_own_address_alone() {
    let rules = |json: &str| Compiled::new(serde_json::from_str(json).unwrap()).unwrap();
    let broadcast = "192.0.2.255".parse().unwrap();
    for closed in ["{}", r#"{"networks": {"allow": ["192.0.2.0/24"]}}"#] {
        let rules = rules(closed);
        assert_eq!(
            rules.address(broadcast, true).permit().unwrap_err(),
            r#"policy: 192.0.2.255 is denied (default rule "directed broadcast")"#
        );
        assert!(rules.address(broadcast, false).allowed);
    }
    assert!(rules(r#"{"networks": {"allow": ["192.0.2.255"]}}"#).address(broadcast, true).allowed);
}

#[test]
fn rates_hold_over_all_clients_and_for_each() {
    let policy = policy(
        r#"{"rates": {"address": {"packets_per_second": 1, "burst": 4}, "network": null, "client": {"packets_per_second": 1, "burst": 3}}}"#,
    );
    let (one, two) = (policy.for_client(), policy.for_client());
    let send = |client: &Policy, packets| {
        client
            .permit(Destination { address: "192.0.2.1".parse().unwrap(), port: None, packets })
            .map_err(|rule| rule.contains("rates.client"))
    };
    assert_eq!(send(&one, 3), Ok(()));
    assert_eq!(send(&one, 1), Err(true));
    assert_eq!(send(&two, 2), Err(false), "the address has had its share");
    assert_eq!(send(&two, 1), Ok(()));
    // By way of a translator it is the same address.
    let translated = Destination { address: "64:ff9b::192.0.2.1".parse().unwrap(), port: None, packets: 1 };
    assert!(two.permit(translated).unwrap_err().contains("rates.address"));
}

#[test]
fn the_rules_in_force_can_be_written_down_and_read_again() {
    let policy = policy(
        r#"{"networks": {"allow": ["10.0.0.0/8"], "deny": ["::ffff:192.0.2.0/120"]}, "nat64_prefixes": ["2001:db8:64::/96"], "ports": {"deny": ["20-25"]},
            "names": {"deny": ["Corp.example"]}, "methods": {"deny": ["PUT"]}, "own_listeners": {"allow": ["http"]},
            "bounds": {"ping": {"min_spacing": "1s 500ms"}}, "rates": {"total": {"packets_per_second": 7}, "network": null}}"#,
    );
    let written = policy.to_proto().rules_json;
    assert_eq!(serde_json::from_str::<PolicySettings>(&written).unwrap(), policy.settings(), "{written}");
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
            prop_assert!(policy.permit(Destination { address: spelled, port: None, packets: 1 }).is_err(), "{spelled}");
        }
    }

    #[test]
    fn one_more_denial_never_opens_anything(allow in prop::collection::vec(prefixes(), 0..4), deny in prop::collection::vec(prefixes(), 0..4), more in prefixes(), bits: u32) {
        let of = |deny| Policy::new(PolicySettings { networks: Rules { allow: allow.clone(), deny, others: Others::Allow }, ..PolicySettings::default() }).unwrap();
        let before = of(deny.clone());
        let after = of(deny.into_iter().chain([more]).collect());
        let destination = Destination { address: Ipv4Addr::from(bits).into(), port: None, packets: 1 };
        prop_assert!(before.permit(destination).is_ok() || after.permit(destination).is_err());
    }

    #[test]
    fn an_allowance_wider_than_a_default_rule_never_opens_it(bits: u32, length in 0_u8..=3) {
        let wide = Network(IpNet::new(Ipv4Addr::from(bits).into(), length).unwrap().trunc());
        let networks = Rules { allow: vec![wide], ..Rules::default() };
        let policy = Policy::new(PolicySettings { networks, ..PolicySettings::default() }).unwrap();
        for closed in [Ipv4Addr::new(224, 1, 2, 3), Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED] {
            prop_assert!(policy.permit(Destination { address: closed.into(), port: None, packets: 1 }).is_err(), "{closed}");
        }
    }
}
