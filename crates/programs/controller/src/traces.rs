//! The log, and traces for an OpenTelemetry collector when somebody asks for them.

use crate::cli::Log;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use std::io;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// A collector that takes longer loses these spans.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The collector's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// No collector is reached by it.
    #[error("--trace-endpoint {0:?} is not an http:// URL, such as http://collector.observability:4318")]
    Endpoint(String),
    /// The library refuses.
    #[error("setting up traces")]
    Build(#[from] ExporterBuildError),
}

/// Where spans go; dropped last, so that the last ones are sent.
pub(crate) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends what is left.
    pub(crate) async fn end(self) {
        let Some(provider) = self.0 else { return };
        // It waits for the runtime, which must not wait for it.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(error = crate::error::chain(&error), "the last spans could not be sent");
        }
    }
}

/// Sends the log to stderr, and spans to the collector at `endpoint`. Needs the async runtime.
pub(crate) fn start(log: Log, endpoint: Option<&str>, instance: &str) -> Result<Traces, TraceError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match log {
        Log::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        Log::Text => lines.boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(LevelFilter::INFO));
    let Some(endpoint) = endpoint else {
        registry.init();
        return Ok(Traces(None));
    };
    let provider = provider(endpoint, instance)?;
    let spans = tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_tracer(provider.tracer("postern-controller"));
    let wanted = Targets::new().with_target("postern_controller", LevelFilter::INFO);
    registry.with(spans.with_filter(wanted)).init();
    Ok(Traces(Some(provider)))
}

fn provider(endpoint: &str, instance: &str) -> Result<SdkTracerProvider, TraceError> {
    let is_http = endpoint
        .parse::<http::Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
    if !is_http {
        return Err(TraceError::Endpoint(endpoint.to_owned()));
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(TIMEOUT)
        .with_http_client(HyperClient::new(HttpConnector::new(), TIMEOUT, None))
        .build()?;
    let resource = Resource::builder()
        .with_service_name("postern-controller")
        .with_attribute(opentelemetry::KeyValue::new("service.instance.id", instance.to_owned()))
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let processor = BatchSpanProcessor::builder(exporter, Tokio).build();
    Ok(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build())
}

/// Makes a span part of the trace that a request's headers name, as those of an API server that traces do.
pub(crate) fn continue_trace(span: &tracing::Span, headers: &http::HeaderMap) {
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    // It fails if traces are off.
    let _ = span.set_parent(context);
}
