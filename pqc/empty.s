// The compiler wants an assembly file beside functions without a body (mldsa.go).
