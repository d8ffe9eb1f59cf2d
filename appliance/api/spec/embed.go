package spec

import _ "embed"

// JSON is openapi.yaml as JSON.
//
//go:embed openapi.json
var JSON []byte
