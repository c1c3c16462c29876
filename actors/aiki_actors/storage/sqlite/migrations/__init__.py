"""The schema: numbered files `NNNN_name.sql`, applied in order and never changed afterwards."""
