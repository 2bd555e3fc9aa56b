//! Which addresses are of the public internet. Everything else is some inside: ours, or that of the network we run in.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use ipnet::IpNet;

/// Networks that no stranger may send us to: IANA's special-purpose registries, and what clouds answer machines at.
const REFUSED: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this host"),
    ("10.0.0.0/8", "a private network"),
    ("100.64.0.0/10", "a carrier's own network"),
    ("127.0.0.0/8", "this host"),
    ("168.63.129.16/32", "a cloud's metadata service"),
    ("169.254.0.0/16", "link-local, where clouds have their metadata service"),
    ("172.16.0.0/12", "a private network"),
    ("192.0.0.0/24", "reserved for protocols"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "a relay of 6to4"),
    ("192.168.0.0/16", "a private network"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("2001::/23", "reserved for protocols, such as Teredo"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "6to4, which leads to any IPv4 address"),
    ("3fff::/20", "for documentation"),
    ("::/127", "this host"),
    ("64:ff9b::/96", "NAT64, which leads to any IPv4 address"),
    ("fc00::/7", "a private network"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// All public addresses of IPv6 are in here.
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

static NETWORKS: LazyLock<Vec<(IpNet, &str)>> = LazyLock::new(|| {
    let parsed = REFUSED.iter().map(|(network, what)| (network.parse().expect("a network of the table"), *what));
    parsed.collect()
});

/// What an address is, if it is not one of the public internet. An IPv4 address in the clothes of IPv6 counts as what it is.
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    let known = NETWORKS.iter().find(|(network, _)| network.contains(&address)).map(|(_, what)| *what);
    known.or_else(|| is_beyond_public_v6(address).then_some("reserved"))
}

fn is_beyond_public_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if (v6.to_bits() ^ PUBLIC_V6.0.to_bits()) >> (128 - PUBLIC_V6.1) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(not_public(inside.parse().unwrap()).is_some(), "{inside}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "::ffff:8.8.8.8", "2606:4700::1111", "2a00::1"] {
            assert_eq!(not_public(public.parse().unwrap()), None, "{public}");
        }
    }

    #[test]
    fn each_is_said_to_be_what_it_is() {
        for (address, what) in [
            ("127.0.0.1", "this host"),
            ("::1", "this host"),
            ("::", "this host"),
            ("fd00:ec2::254", "a private network"),
            ("fe80::1", "link-local"),
            ("ff02::1", "multicast"),
            ("64:ff9b::7f00:1", "NAT64, which leads to any IPv4 address"),
            ("::127.0.0.1", "reserved"),
            ("5f00::1", "reserved"),
        ] {
            assert_eq!(not_public(address.parse().unwrap()), Some(what), "{address}");
        }
    }
}
