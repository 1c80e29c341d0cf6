//! Where in a file a field of a check stands.

use super::{
    error::Position,
    node::{Member, Node},
};

/// A file in its canonical shape, asked for places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) root: &'a Node,
}

impl<'a> Places<'a> {
    /// The check of this number, from 0.
    pub(super) fn check(self, index: usize) -> Option<&'a Node> {
        self.root.get("checks")?.node.item(index)
    }

    /// Where the value of a field of a check stands. Where the field is not given: where the nearest field around it begins; what the
    /// defaults have given stands there.
    pub(super) fn locate(self, check: usize, field: &str) -> Position {
        let Some(node) = self.check(check) else { return self.root.at };
        let mut steps = field.split(['.', '[', ']']).filter(|step| !step.is_empty());
        let Some(first) = steps.next() else { return node.at };
        let own = node.get(first).or_else(|| node.get("probe")?.node.get(first));
        match own.or_else(|| self.root.get("defaults")?.node.get(first)) {
            Some(member) => descend(member, steps),
            None => node.at,
        }
    }
}

/// Follows a path from a member as far as the file goes.
pub(super) fn descend<'s>(member: &Member, steps: impl Iterator<Item = &'s str>) -> Position {
    let mut node = &member.node;
    // Where to point if the next step leads nowhere.
    let mut begin = member.at;
    for step in steps {
        let next = match step.parse().ok() {
            Some(index) => node.item(index).map(|item| (item, item.at)),
            None => node.get(step).map(|member| (&member.node, member.at)),
        };
        let Some((inner, at)) = next else { return begin };
        (node, begin) = (inner, at);
    }
    node.at
}
