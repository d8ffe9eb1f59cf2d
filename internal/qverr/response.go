package qverr

import (
	"fmt"
	"slices"
	"strings"
)

// Response is a 16-bit status code of a response descriptor of the QUAC 100.
type Response uint16

// Response codes of the card.
const (
	RespSuccess        Response = 0x0000
	RespInvalidOpcode  Response = 0x0001
	RespInvalidParam   Response = 0x0002
	RespInvalidLen     Response = 0x0003
	RespDMAError       Response = 0x0004
	RespCryptoFail     Response = 0x0005
	RespKeyNotFound    Response = 0x0006
	RespBusy           Response = 0x0007
	RespTimeout        Response = 0x0008
	RespSelfTestFail   Response = 0x0009
	RespQRNGDepleted   Response = 0x000A
	RespQRNGHealthFail Response = 0x000B
	RespOvertemp       Response = 0x000C
	RespFWError        Response = 0x000D
	RespUnknown        Response = 0x00FF
)

// ResponseEntry is one row of the card's response codes.
type ResponseEntry struct {
	Response Response `json:"response"`
	Name     string   `json:"name"`
	Summary  string   `json:"summary"`
	Code     Code     `json:"code"` // what the driver translates it to
}

// String is "NAME (0xNNNN)".
func (e ResponseEntry) String() string { return fmt.Sprintf("%s (0x%04X)", e.Name, uint16(e.Response)) }

var responseRows = []ResponseEntry{
	{RespSuccess, "QUAC100_RESP_SUCCESS", "The card completed the operation", Success},
	{RespInvalidOpcode, "QUAC100_RESP_INVALID_OPCODE", "The card does not know the opcode", Unsupported},
	{RespInvalidParam, "QUAC100_RESP_INVALID_PARAM", "The parameter set or the key handle is not valid", Inval},
	{RespInvalidLen, "QUAC100_RESP_INVALID_LEN", "The length of an input or output is out of range", Inval},
	{RespDMAError, "QUAC100_RESP_DMA_ERROR", "The card could not read or write host memory", QUACDMA},
	{RespCryptoFail, "QUAC100_RESP_CRYPTO_FAIL", "The cryptographic operation failed", PQCDecrypt},
	{RespKeyNotFound, "QUAC100_RESP_KEY_NOT_FOUND", "The card's keystore has no key of that id", PQCKeyNotFound},
	{RespBusy, "QUAC100_RESP_BUSY", "The engine is busy, try again later", Again},
	{RespTimeout, "QUAC100_RESP_TIMEOUT", "The operation ran into the card's watchdog", QUACWatchdog},
	{RespSelfTestFail, "QUAC100_RESP_SELF_TEST_FAIL", "A self-test found an internal fault", QUACSelfTest},
	{RespQRNGDepleted, "QUAC100_RESP_QRNG_DEPLETED", "The entropy pool of the generator is empty", PQCQRNG},
	{RespQRNGHealthFail, "QUAC100_RESP_QRNG_HEALTH_FAIL", "The generator's health test failed", QUACQRNGHealth},
	{RespOvertemp, "QUAC100_RESP_OVERTEMP", "Rejected because the card throttles", QUACOvertemp},
	{RespFWError, "QUAC100_RESP_FW_ERROR", "An internal error of the firmware", Generic},
	{RespUnknown, "QUAC100_RESP_UNKNOWN", "An unknown error: a fault of the hardware", Generic},
}

// Responses returns all response codes of the card.
func Responses() []ResponseEntry { return slices.Clone(responseRows) }

// LookupResponse finds a response code.
func LookupResponse(r Response) (ResponseEntry, bool) {
	for _, e := range responseRows {
		if e.Response == r {
			return e, true
		}
	}
	return ResponseEntry{}, false
}

func lookupResponseName(name string) (ResponseEntry, bool) {
	for _, e := range responseRows {
		if strings.EqualFold(e.Name, name) {
			return e, true
		}
	}
	return ResponseEntry{}, false
}

// FromResponse translates a response code of the card. A number that the
// reference does not list is what RespUnknown stands for.
func FromResponse(r Response) Code {
	if e, ok := LookupResponse(r); ok {
		return e.Code
	}
	return Generic
}
