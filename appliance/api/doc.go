// Package api serves the node API that openapi.yaml describes, on as many
// listeners as it is given.
//
// A request passes: an id, recovery from panics, authentication, a known route,
// its query parameters, then its handler, which is a few lines around a
// service. Every failure is answered with the catalogue's error body; the
// statuses are the closed set of the reference, so a method that a path does
// not know is QV_ERR_INVAL with 400 and an Allow header, not 405.
package api
