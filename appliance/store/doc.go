// Package store keeps the node's state in one bbolt file, state.db.
//
// Values are JSON. The file carries a schema version; Open brings an older file
// up to date step by step, each step in one transaction and after a copy of the
// file was put aside, and refuses a newer one with QV_ERR_VERSION. Every update
// is on disk when it returns.
package store
