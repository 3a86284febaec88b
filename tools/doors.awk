# doors.awk: turns the preprocessed rows of ops.def ("DOOR name I a I b O y") into the typed C doors. Reads nothing else.
$1 == "DOOR" {
    parameters = ""; ins = ""; outs = ""; nin = 0; nout = 0
    for (i = 3; i < NF; i += 2) {
        if ($i == "I") { parameters = parameters "const lbr_tensor *" $(i + 1) ", "; ins = ins (nin++ ? ", " : "") $(i + 1) }
        if ($i == "O") { parameters = parameters "lbr_tensor *" $(i + 1) ", "; outs = outs (nout++ ? ", " : "") $(i + 1) }
    }
    printf "int lbr_%s(%sconst lbr_%s_attr *attr)\n{\n", $2, parameters, $2
    if (nin) printf "    const lbr_tensor *in[] = {%s};\n", ins
    printf "    lbr_tensor *out[] = {%s};\n", outs
    printf "    return lbr_submit(LBR_OP_%s, %s, %d, out, %d, attr);\n}\n", $2, nin ? "in" : "NULL", nin, nout
}
