# syntax=docker/dockerfile:1
# Build: compiler stage with cached dependencies, then a run image without a shell or a root user.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin sluice \
    && mkdir /programs \
    && cp target/release/sluice /programs/sluice \
    && mkdir -m 0700 /state
# The twin for processors with AVX2, which `sluice worker calc` becomes where it fits.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    if [ "$(uname -m)" = x86_64 ]; then \
        RUSTFLAGS="-C target-cpu=x86-64-v3" cargo build --release --locked --bin sluice --target-dir target/v3 \
        && cp target/v3/release/sluice /programs/sluice-v3; \
    fi

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="The gate in front of trading services" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /programs/ /usr/local/bin/
COPY conf/sluice.toml /etc/sluice/sluice.toml
COPY conf/services.d /etc/sluice/services.d
COPY --from=build --chown=65532:65532 --chmod=0700 /state /var/lib/sluice
USER 65532:65532
VOLUME /var/lib/sluice
EXPOSE 8000 8012
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s CMD ["/usr/local/bin/sluice", "health", "--url", "http://127.0.0.1:8000/readyz"]
ENTRYPOINT ["/usr/local/bin/sluice"]
CMD ["up", "--conf", "/etc/sluice/sluice.toml", "--data-dir", "/var/lib/sluice", "--no-demo"]
