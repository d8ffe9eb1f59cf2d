// Package spec holds the wire types, the server interface and the client of
// the node API, all generated from ../openapi.yaml, and that description
// itself as JSON for the request checker.
package spec

//go:generate go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 -config oapi-codegen.yaml ../openapi.yaml
//go:generate go run ../../../internal/yamljson ../openapi.yaml openapi.json
