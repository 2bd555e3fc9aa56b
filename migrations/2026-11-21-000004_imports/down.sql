DROP TABLE import_changes, import_issues, imports;
