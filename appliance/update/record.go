package update

// RecordKey is where the service keeps its record among the settings.
const RecordKey = recordKey
