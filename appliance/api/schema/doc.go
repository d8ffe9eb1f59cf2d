// Package schema checks requests against the API description.
//
// It knows the part of OpenAPI 3.0 schemas that the description uses: type,
// required, properties, additionalProperties, items, enum, pattern, minLength,
// maxLength, minimum, maximum, minItems, maxItems, oneOf by type, the format
// size, and $ref. A
// value of the wrong JSON type is QV_ERR_CONFIG with status 400, anything else
// that breaks the schema QV_ERR_CONFIG with status 422; details.path names the
// place. Query parameters are QV_ERR_INVAL.
package schema
