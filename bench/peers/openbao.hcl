# OpenBao as its own documentation runs it in production: integrated storage, an audit file; one node, no TLS.
ui = false
log_level = "error"
api_addr = "http://{{listen}}"
cluster_addr = "https://{{cluster}}"

listener "tcp" {
  address = "{{listen}}"
  cluster_address = "{{cluster}}"
  tls_disable = true
}

storage "raft" {
  path = "{{dir}}/raft"
  node_id = "bench"
  performance_multiplier = 1
}

audit "file" "bench" {
  description = "every request and answer"
  options {
    file_path = "{{dir}}/audit.log"
  }
}
