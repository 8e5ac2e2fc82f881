//! The index from resource URIs (RFC 8707) to audiences, over all clients.

use std::sync::Arc;

use countersign_mesh::claims::{Audience, ClientId};
use countersign_mesh::internals::CowMap;

use crate::client::{Client, ResourceAlias, ResourceUri};

/// Says which audience a resource URI stands for. Cheap to clone.
///
/// Several clients may serve the same audience, and each may register URIs for it. If clients register one URI
/// for different audiences, the URI stands for none.
#[derive(Debug, Clone, Default)]
pub struct ResourceIndex(CowMap<ResourceUri, Arc<[(ClientId, Audience)]>>);

impl ResourceIndex {
    /// Builds the index of some clients.
    pub fn of<'a>(clients: impl Iterator<Item = &'a Client>) -> Self {
        let mut index = Self::default();
        clients.for_each(|client| index.replace(None, Some(client)));
        index
    }

    /// The audience that a URI stands for. `None` if no client registers the URI, or clients disagree about it.
    pub fn audience(&self, uri: &ResourceUri) -> Option<&Audience> {
        let (first, others) = self.0.get(uri)?.split_first()?;
        others.iter().all(|(_, audience)| *audience == first.1).then_some(&first.1)
    }

    /// Updates the index after a client changed. `before` is `None` for a new client, `after` for a removed one.
    pub(super) fn replace(&mut self, before: Option<&Client>, after: Option<&Client>) {
        let aliases = |client: Option<&Client>| -> Vec<ResourceAlias> {
            client.map_or(&[][..], |client| client.settings.resources.as_slice()).to_vec()
        };
        let (old, new) = (aliases(before), aliases(after));
        if old == new {
            return;
        }
        if let Some(client) = before {
            old.iter().for_each(|alias| self.remove(&client.id, &alias.uri));
        }
        if let Some(client) = after {
            new.iter().for_each(|alias| self.add(&client.id, alias));
        }
    }

    fn add(&mut self, client: &ClientId, alias: &ResourceAlias) {
        let mut entries = self.0.get(&alias.uri).map_or_else(Vec::new, |known| known.to_vec());
        entries.push((client.clone(), alias.audience.clone()));
        self.0.insert(alias.uri.clone(), entries.into());
    }

    fn remove(&mut self, client: &ClientId, uri: &ResourceUri) {
        let mut entries = self.0.get(uri).map_or_else(Vec::new, |known| known.to_vec());
        entries.retain(|(id, _)| id != client);
        if entries.is_empty() {
            self.0.remove(uri);
        } else {
            self.0.insert(uri.clone(), entries.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_mesh::claims::Timestamp;

    use super::*;
    use crate::client::{ClientSettings, Resources};

    fn client(id: &str, aliases: &[(&str, &str)]) -> Client {
        let aliases = aliases.iter().map(|(uri, audience)| ResourceAlias {
            uri: uri.parse().expect("a URI"),
            audience: audience.parse().expect("an audience"),
        });
        let resources =
            Resources::try_from(aliases.collect::<Vec<_>>()).expect("each URI occurs once");
        let settings = ClientSettings { resources, ..ClientSettings::default() };
        Client::new(id.parse().expect("a valid id"), settings, Timestamp::from_unix(1))
    }

    #[test]
    fn a_uri_stands_for_an_audience_while_all_clients_that_register_it_agree() {
        let uri: ResourceUri = "https://shop.test/".parse().expect("a URI");
        let means = |index: &ResourceIndex| index.audience(&uri).map(ToString::to_string);
        let one = client("one", &[(uri.as_str(), "shop")]);
        let other = client("other", &[(uri.as_str(), "shop"), ("a:b", "shop")]);
        let stranger = client("stranger", &[(uri.as_str(), "till")]);

        let mut index = ResourceIndex::of([&one, &other].into_iter());
        assert_eq!(means(&index).as_deref(), Some("shop"));
        index.replace(None, Some(&stranger));
        assert_eq!(means(&index), None, "the clients disagree");
        index.replace(Some(&one), None);
        index.replace(Some(&other), Some(&client("other", &[])));
        assert_eq!(means(&index).as_deref(), Some("till"));
        index.replace(Some(&stranger), None);
        assert_eq!(means(&index), None);
        assert_eq!(index.0.iter().count(), 0, "no empty entries are left");
    }
}
