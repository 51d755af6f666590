//! Name resolution. glibc's resolver loads shared libraries at run time, which a static binary in a scratch image
//! does not have (and must not load on another distribution). So on Linux names are resolved in process.

#[cfg(target_os = "linux")]
pub(crate) use in_process::Resolver;

#[cfg(not(target_os = "linux"))]
pub(crate) use hyper_util::client::legacy::connect::dns::GaiResolver as Resolver;

#[cfg(not(target_os = "linux"))]
pub(crate) fn resolver() -> Resolver {
    Resolver::new()
}

#[cfg(target_os = "linux")]
pub(crate) fn resolver() -> Resolver {
    Resolver
}

#[cfg(target_os = "linux")]
mod in_process {
    use hickory_resolver::TokioResolver;
    use hyper_util::client::legacy::connect::dns::Name;
    use std::future::Future;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// Uses /etc/hosts and /etc/resolv.conf. They are read for the first name, never for an IP address.
    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Resolver;

    type Addresses = std::vec::IntoIter<SocketAddr>;
    type Failure = Box<dyn std::error::Error + Send + Sync>;

    impl tower::Service<Name> for Resolver {
        type Response = Addresses;
        type Error = Failure;
        type Future = Pin<Box<dyn Future<Output = Result<Addresses, Failure>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, name: Name) -> Self::Future {
            Box::pin(async move { resolve(name.as_str()).await })
        }
    }

    async fn resolve(name: &str) -> Result<Addresses, Failure> {
        // RFC 6761: localhost is loopback, with or without a hosts file.
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)].into_iter());
        }
        let failed =
            |error: &dyn std::fmt::Display| -> Failure { format!("resolving {name}: {error}").into() };
        let resolver = TokioResolver::builder_tokio()
            .and_then(hickory_resolver::ResolverBuilder::build)
            .map_err(|error| failed(&error))?;
        let found = resolver.lookup_ip(name).await.map_err(|error| failed(&error))?;
        let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
        Ok(addresses.into_iter())
    }
}
