package quac100

import (
	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// result turns the response of a slot into an error, nil for success.
func (c *Card) result(s *slot, q *request) error {
	r := &s.rsp
	if r.Status == regs.RespSuccess {
		if r.Opcode == regs.OpVerify && r.Flags&regs.RespVerified == 0 {
			return qverr.New(qverr.QUACDriver, "card %s answers a verification with success but without its flag", c.bus.Address())
		}
		if fits(r.Out0Len, s.cmd.Dst0Len, q.variable()) && fits(r.Out1Len, s.cmd.Dst1Len, false) {
			return nil
		}
		err := qverr.New(qverr.QUACDMA, "card %s says it wrote %d and %d bytes for %s, which has room for %d and %d",
			c.bus.Address(), r.Out0Len, r.Out1Len, s.cmd.Opcode, s.cmd.Dst0Len, s.cmd.Dst1Len)
		c.trouble(err)
		return err
	}
	return c.refused(r.Opcode, r.Status, r.Detail, s.cmd.Param)
}

func fits(wrote, room uint32, variable bool) bool {
	return wrote == room || variable && wrote <= room
}

// refused is the error of a response: the code that the reference gives the
// response code, made precise where opcode and detail say more.
func (c *Card) refused(op regs.Opcode, status regs.RespStatus, detail regs.Detail, alg regs.Alg) error {
	code := qverr.FromResponse(qverr.Response(status))
	final := false
	switch {
	case status == regs.RespCryptoFail && detail == regs.DetailSigInvalid:
		code = qverr.PQCVerify
	case status == regs.RespCryptoFail && detail == regs.DetailNone:
		code = engineFault(alg)
	case status == regs.RespCryptoFail && detail == regs.DetailKeyCheck:
		code = keyFault(op)
	case status == regs.RespInvalidParam && detail == regs.DetailBadParamSet:
		code = qverr.PQCParamSet
	case status == regs.RespInvalidParam && detail == regs.DetailFeatureOff:
		code = qverr.Unsupported
	case status == regs.RespInvalidParam && detail == regs.DetailKeyState:
		code = qverr.PQCKeyExpired
	case status == regs.RespInvalidParam && (detail == regs.DetailFIPSDenied || detail == regs.DetailNotExtractable || detail == regs.DetailKeyUsage):
		code = qverr.Perm
	case status == regs.RespInvalidParam && detail == regs.DetailQuota:
		code = qverr.Limit
	case detail == regs.DetailKeyStoreFull:
		final = true // no retry helps
	}
	err := qverr.New(code, "card %s: %w", c.bus.Address(), &ResponseError{op, status, detail})
	err.NotTransient = final
	return err.With("response", uint16(status)).With("detail", detail.String())
}

// engineFault is the code of a mismatch that the card found in its own
// computation: a fault of the engine, never of the input.
func engineFault(alg regs.Alg) qverr.Code {
	switch alg {
	case regs.MLKEM512, regs.MLKEM768, regs.MLKEM1024, regs.MLDSA44, regs.MLDSA65, regs.MLDSA87:
		return qverr.QUACNTT
	}
	return qverr.Generic
}

// keyFault is the code of a key that is none, by what it was given for.
func keyFault(op regs.Opcode) qverr.Code {
	switch op {
	case regs.OpKEMEncaps:
		return qverr.PQCEncaps
	case regs.OpKEMDecaps:
		return qverr.PQCDecaps
	case regs.OpSign:
		return qverr.PQCSign
	case regs.OpVerify:
		return qverr.PQCVerify
	case regs.OpKEMKeygen, regs.OpSigKeygen:
		return qverr.PQCKeygen
	}
	return qverr.Inval
}
