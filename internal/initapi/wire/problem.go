package wire

import "quantavirt/internal/qverr"

// NewProblem describes err with the texts of the catalogue; nil for nil.
func NewProblem(err error) *Problem {
	if err == nil {
		return nil
	}
	p := qverr.NewPayload(err, "")
	return &Problem{Code: int32(p.Code), Name: p.Name, Message: p.Detail, Recovery: qverr.HintOf(err)}
}
